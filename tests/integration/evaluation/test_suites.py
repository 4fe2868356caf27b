"""``evaluate suite=``: tasks of lm-evaluation-harness on base and tuned model, with the prompts of the run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from jinja2.exceptions import SecurityError

pytest.importorskip("lm_eval", reason='lm-evaluation-harness is not installed: pip install "llmft[lm-eval]"')

from llmft.config.schema import EvaluateConfig
from llmft.data.records import Turn
from llmft.evaluation.suites import tasks
from llmft.evaluation.suites.harness_model import harness_model
from llmft.models.backbone.open import TrainedBackbone
from llmft.runs.open import open_run
from llmft.utils.errors import UserError
from tests.conftest import write_rows

CHOICE = {
    "task": "sums", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "sums.jsonl"}}, "test_split": "test",
    "output_type": "multiple_choice", "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "label",
    "doc_to_choice": "choices", "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip
WRITING = CHOICE | {
    "task": "writing", "output_type": "generate_until", "doc_to_target": "{{choices[label]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 3},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip
del WRITING["doc_to_choice"]
ROWS = [
    {"question": f"What is {n} plus {n}?", "choices": [f"{2 * n}", f"{2 * n + 1}"], "label": n % 2} for n in range(6)
]


@pytest.fixture
def folder(tmp_path):
    """A folder of two tasks with six rows each."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    write_rows(folder / "sums.jsonl", *ROWS)
    for task in (CHOICE, WRITING):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(task))
    return folder


def copied(run: Path, to: Path) -> Path:
    """A copy of a run that a test may write to."""
    return Path(shutil.copytree(run, to / "run"))


def test_scores_of_suites_stand_beside_the_others(llmft, lora_run, tmp_path, folder):
    run = copied(lora_run, tmp_path)
    arguments = (f"run={run}", f"suite_path={folder}", "generation.max_new_tokens=4")
    code, out, err = llmft("evaluate", *arguments, "suite=sums", "evaluate.rows=2")
    assert code == 0, err
    before = json.loads((run / "evaluation.json").read_text())
    assert list(before["suites"]) == ["sums"]
    assert {"base", "base_stderr", "tuned", "tuned_stderr", "difference_interval"} <= set(
        before["suites"]["sums"]["acc"]
    )
    assert "6 rows" in before["suites"]["sums"]["acc"]["definition"]
    predictions = (run / "predictions.jsonl").read_bytes()

    code, out, err = llmft(
        "evaluate", *arguments, "suite=writing,sums", "evaluate.rows=0", "suite_limit=4", "format=json"
    )
    assert code == 0, err
    after = json.loads((run / "evaluation.json").read_text())
    assert json.loads(out)["suites"] == after["suites"]
    assert set(after["suites"]) == {"sums", "writing"}
    assert "4 rows" in after["suites"]["sums"]["acc"]["definition"]  # scored again, on fewer rows
    assert after["scores"] == before["scores"]  # with evaluate.rows=0 those of the test rows stay
    assert (run / "predictions.jsonl").read_bytes() == predictions
    for page in (run / "report.html", run / "model" / "README.md"):
        assert "writing: exact" in page.read_text().replace("\\", ""), page

    code, out, err = llmft("evaluate", f"run={run}", "evaluate.rows=2", "generation.max_new_tokens=4")
    assert code == 0, err
    assert "writing: exact_match" in out  # an evaluation of the test rows keeps them


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("kind", ["lora_run", "full_run"])
def test_choices_have_the_likelihood_that_the_run_gives_them(request, folder, kind, chat):
    run = request.getfixturevalue(kind)
    backbone = TrainedBackbone(run / "model", open_run(str(run))[1])
    model, codec = backbone.load().eval(), backbone.codec
    loaded = tasks.load_tasks(["sums"], folder, code=False)
    from lm_eval import evaluator  # pyright: ignore[reportMissingImports]

    with tasks.harness(code=False), torch.inference_mode():
        lm = harness_model(model, codec, batch_size=4)
        found = evaluator.evaluate(lm, loaded, bootstrap_iters=0, apply_chat_template=chat, fewshot_as_multiturn=chat)
    for sample, row in zip(found["samples"]["sums"], ROWS, strict=True):
        text = f"Question: {row['question']}\nAnswer:"
        for ((got, _),), choice in zip(sample["resps"], row["choices"], strict=True):
            assert got == pytest.approx(likelihood(model, codec, text, choice, chat=chat), abs=1e-3)


def likelihood(model, codec, text, answer, *, chat):
    """The log-likelihood of an answer after a prompt, one sequence at a time."""
    tokenizer = codec.tokenizer
    if chat:
        row = codec.encode(codec.template.render([Turn("user", text)]), answer)
        labels = [label for label in row.labels if label != -100]
        start, target = row.input_ids[: row.prompt_length], labels[:-1]
        assert labels[-1] in codec.stop_ids
    elif model.config.is_encoder_decoder:
        start, target = tokenizer(text)["input_ids"], tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    else:
        start = tokenizer(text)["input_ids"]
        target = tokenizer(f"{text} {answer}")["input_ids"][len(start) :]
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            logits = model(input_ids=torch.tensor([start]), labels=torch.tensor([target])).logits[0]
        else:
            logits = model(input_ids=torch.tensor([start + target])).logits[0, len(start) - 1 : -1]
    return sum(logits.log_softmax(-1)[i, token].item() for i, token in enumerate(target))


def test_an_answer_ends_at_the_trained_stop_token(lora_run):
    """As `answer` gives it: the same prompt ids, the same greedy tokens."""
    backbone = TrainedBackbone(lora_run / "model", open_run(str(lora_run))[1])
    model, codec = backbone.load().eval(), backbone.codec
    prompt = codec.template.render([Turn("user", "Hi")])
    lm = harness_model(model, codec, batch_size=2)
    assert lm.apply_chat_template([{"role": "user", "content": "Hi"}]) == prompt.text
    ids, mask = lm.tok_batch_encode([prompt.text, lm.apply_chat_template([{"role": "user", "content": "Hello"}])])
    assert ids[0][mask[0].bool()].tolist() == codec.prompt_ids(prompt)
    start = lm.apply_chat_template([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well"}], False)
    assert start == prompt.text + "Well"
    seen = {}
    model.generate = lambda **settings: seen.update(settings) or settings["input_ids"]
    lm._model_generate(ids, 60, ["\n"])
    assert codec.stop_id in seen["eos_token_id"]
    lm.tok_batch_encode([prompt.text], left_truncate_len=2)
    assert lm.cut == 1


def refused(names, folder, *, code=False):
    with pytest.raises(UserError) as error:
        tasks.load_tasks(names, folder, code=code)
    return str(error.value)


def test_a_task_without_its_data(folder):
    (folder / "sums.jsonl").unlink()
    assert "suite=sums: cannot be loaded (FileNotFoundError" in refused(["sums"], folder)


@pytest.mark.slow  # reads the 10,000 task files of the harness
def test_tasks_of_the_harness_without_a_network_or_with_code(folder):
    assert "suite=sms: no such task. Did you mean sums?" in refused(["sums", "sms"], folder)
    assert "its data is not on this machine" in refused(["hellaswag"], None)
    assert "suite=humaneval: " in refused(["humaneval"], None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric_list": [{"metric": "somebody/score"}]}, "its metric somebody/score is a script of the Hub"),
        ({"unsafe_code": True}, "runs what the model writes as code"),
    ],
)
def test_no_code_comes_with_a_task(folder, change, message):
    (folder / "sums.yaml").write_text(yaml.safe_dump(CHOICE | change))
    assert message in refused(["sums"], folder)


def test_templates_are_rendered_in_a_sandbox(folder):
    change = {"doc_to_text": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}
    (folder / "sums.yaml").write_text(yaml.safe_dump(CHOICE | change))
    with pytest.raises((UserError, SecurityError), match="unsafe"):
        rendered(folder)


def rendered(folder):
    """The requests of the first row of `sums`."""
    with tasks.harness(code=False):
        task = tasks.load_tasks(["sums"], folder, code=False)["tasks"]["sums"]
        task.set_config(key="num_fewshot", value=0)
        task.build_all_requests(limit=1, rank=0, world_size=1)
        return task.instances


def test_names_are_separated_by_commas(load_config):
    config: EvaluateConfig = load_config("run=x", "suite='a, b,a'", command="evaluate")
    assert config.suites == ["a", "b"]
