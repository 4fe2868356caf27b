"""``answer``, ``evaluate`` and ``chat`` with an exported folder in place of a run; what they refuse of somebody else's."""

import json
import shutil
from pathlib import Path

import pytest

from llmft import load_run
from llmft.generation import load
from llmft.models.backbone.locate import locate
from llmft.runtimes import open as runtimes
from llmft.runtimes.pytorch import open_folder

QUESTION = 'question="What is a llama?"'


@pytest.fixture(scope="module")
def exported(lora_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Merged weights and the adapter of one run."""
    folder = tmp_path_factory.mktemp("exports") / "out"
    load_run(lora_run).export(folder, form=["merged", "adapter"])
    return folder


def test_it_answers_as_the_run_does(exported, lora_run, llmft, tmp_path):
    answers = [llmft("answer", f"run={run}", QUESTION, "format=json") for run in (lora_run, exported / "merged")]
    assert [code for code, _, _ in answers] == [0, 0], answers[1][2]
    first, second = (json.loads(out) for _, out, _ in answers)
    assert first == second
    # its passport names the tiny base; of a local one only adapter_config.json could
    code, out, err = llmft("answer", f"run={exported / 'adapter'}", QUESTION, "format=json", "compare=true")
    assert code == 0, err
    assert json.loads(out)["answer"] == first["answer"] != json.loads(out)["base_answer"]
    shutil.copytree(exported / "adapter", tmp_path / "adapter")
    edit(tmp_path / "adapter" / "passport.json", base={})
    code, _, err = llmft("answer", "run=adapter", QUESTION)
    assert (code, "its base was a local model; write its folder into base_model_name_or_path" in err) == (2, True)
    edit(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=locate(load_run(lora_run).config.model))
    code, out, err = llmft("answer", "run=adapter", QUESTION, "format=json")
    assert code == 0, err
    assert json.loads(out)["answer"] == first["answer"]


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_same_rows_are_scored(exported, lora_run, llmft, monkeypatch):
    found = []
    for words in ([f"run={lora_run}", "output=run.jsonl"], [f"run={exported / 'merged'}", f"rows_of={lora_run}"]):
        code, out, err = llmft("evaluate", *words, "format=json", "evaluate.base=false")
        assert code == 0, err
        found.append(json.loads(out)["scores"])
    # in a runtime without PyTorch's generator: one prompt at a time, the loss from its logits
    monkeypatch.setattr(load, "TORCH_FORMS", ())
    code, out, err = llmft("evaluate", f"run={exported / 'merged'}", f"rows_of={lora_run}", "format=json")
    assert code == 0, err
    run, merged, runtime = *found, json.loads(out)["scores"]
    assert merged.keys() == run.keys()
    for name, score in run.items():
        assert merged[name]["tuned"] == pytest.approx(score["tuned"], rel=1e-4)
        assert runtime[name]["tuned"] == pytest.approx(score["tuned"], rel=1e-4)


def test_its_run_is_found_in_outputs_or_named(exported, llmft, tmp_path, lora_run):
    code, _, err = llmft("evaluate", f"run={exported / 'merged'}")
    assert (code, "whose run is not in outputs/; pass rows_of=RUN" in err) == (2, True)
    code, _, err = llmft("export", f"run={exported / 'merged'}", "to=out")
    assert (code, "is an exported folder; answer, chat, serve and evaluate take it" in err) == (2, True)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "mine").symlink_to(lora_run)
    code, out, err = llmft("evaluate", f"run={exported / 'merged'}", "format=json", "evaluate.rows=1")
    assert code == 0, err
    assert json.loads(out)["rows"] == 1


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("passport.json", "family", "os.system", "family is not as llmft writes it"),
        ("passport.json", "generation", {"max_new_tokens": -1}, "generation"),
        ("passport.json", "system", ["x"], "system is not as llmft writes it"),
        ("passport.json", "base", {"path": "/etc"}, "base is not as llmft writes it"),
        ("passport.json", "base", {"path": "tiny:gpt2", "target": "x"}, "base is not as llmft writes it"),
        ("passport.json", "run", None, "run is not as llmft writes it"),
        ("config.json", "auto_map", {"AutoModel": "evil.Model"}, "brings code of its own"),
        ("tokenizer_config.json", "auto_map", {"AutoTokenizer": "evil.Tokenizer"}, "brings code of its own"),
    ],
)
def test_a_hostile_folder_is_refused(file, key, value, message, exported, llmft, tmp_path):
    shutil.copytree(exported / "merged", tmp_path / "theirs")
    edit(tmp_path / "theirs" / file, **{key: value})
    code, _, err = llmft("answer", "run=theirs", QUESTION)
    assert code == 2
    assert message in err


def test_a_broken_passport_and_an_empty_folder(exported, llmft, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copy(exported / "merged" / "passport.json", tmp_path / "empty")
    code, _, err = llmft("answer", "run=empty", QUESTION)
    assert (code, "holds no exported model of the forms merged" in err) == (2, True)
    (tmp_path / "empty" / "passport.json").write_text("{")
    code, _, err = llmft("answer", "run=empty", QUESTION)
    assert (code, "passport.json: cannot be read" in err) == (2, True)


def test_forms_by_their_files(exported, tmp_path):
    assert [runtimes.form_of(exported / name) for name in ("merged", "adapter")] == ["merged", "adapter"]
    for name, file in (("ctranslate2", "model.bin"), ("gguf", "model.gguf"), ("onnx", "model.onnx")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
        assert runtimes.form_of(tmp_path / name) == name


def test_a_runtime_reads_everything_from_the_folder(exported):
    runtime = open_folder(exported / "merged")
    assert runtime.stop_ids == frozenset(runtime.generation.eos_token_id)
    assert runtime.logits([5, 6, 7], [8, 9]).shape == (2, runtime.model.config.vocab_size)
