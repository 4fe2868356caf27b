"""Evaluation at the end of a training and by ``evaluate``: the same rows, the same numbers, base beside tuned."""

import csv
import functools
import json
import math
from typing import Any, cast

import pytest
import torch

from llmft.callbacks.generated import GenerationMetrics
from llmft.config.stored import stored_config
from llmft.evaluation.row_loss import row_losses
from llmft.generation.decoder import Decoder
from llmft.generation.generator import Answer, Generator, majority
from llmft.models.attention.kernels import Kernels
from llmft.models.backbone import load as backbone
from llmft.models.backbone.open import Backbone
from llmft.models.peft import trainable
from tests.conftest import chat_row, forked, read_json_lines, write_rows
from tests.integration.generation.test_generator import CONTEXTS, sharpened

FAST = (
    "data.limit=60",
    "questions=0",
    "callbacks.samples.number=0",
    "callbacks.progress.refresh_rate=0",
    "logger=none",
)
RUNS = {
    "lora": ("model=tiny_llama", "data=keyword_qa", "peft=lora", "optim.lr=1e-2"),
    "full": (
        "model=tiny_t5",
        "data=alpaca",
        "data.path=sample",
        "peft=none",
        "optim.lr=1e-3",
        "data.max_prompt_tokens=900",
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Each run once; a parametrized fixture would make it anew whenever the order of the tests alternates."""
    return functools.cache(lambda name: make(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(params=["lora", pytest.param("full", marks=pytest.mark.slow)])
def run(request, made):
    return made(request.param)


def make(name, folder):
    done = forked(
        *RUNS[name], *FAST, "data.split={val:0.1,test:0.2}", "trainer.max_steps=8", "generation.max_new_tokens=8", "evaluate.rows=10", "evaluate.few_shot=1",
        "evaluate.response_file=with-response.json", "report.write=false", "output_dir=made", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "made", done


def test_predictions_are_the_test_rows_in_order(run):
    folder, done = run
    rows = read_json_lines(folder / "predictions.jsonl")
    assert len(rows) == 10
    assert all({"id", "prompt", "reference", "answer", "base_answer", "scores"} <= set(row) for row in rows)
    found = json.loads((folder / "evaluation.json").read_text())
    assert (found["split"], found["rows"], found["of"]) == ("test", 10, 12)
    assert "10 of 12 test rows" in done.stdout
    assert found["headline"] in done.stdout
    assert all(isinstance(row["few_shot_answer"], str) for row in rows)
    assert len(found["few_shot"]["examples"]) == 1
    assert not {row["place"] for row in rows} & {*found["few_shot"]["examples"]}
    assert sum(row["in_train"] for row in rows) == found["clean"]["in_train"]
    assert found["primary"]["score"] == ("keyword_f1" if "keyword_f1" in found["scores"] else "loss")
    assert all(row["question"] in row["prompt"] for row in rows)
    assert all(set(row["scores"]) == set(row["base_scores"]) for row in rows)


def test_a_base_in_bfloat16_is_evaluated_in_it_or_on_request_in_float32_whatever_the_batch(tmp_path, llmft):
    """The same weights in every table; in float32 the scores of the training, for any batch size."""
    few = ("evaluate.rows=auto", "evaluate.resamples=100", "generation.max_new_tokens=4", "trainer.max_steps=4")
    line = (*RUNS["lora"], *FAST, *few, "model.dtype=bfloat16", "evaluate.dtype=float32", "report.write=false")
    code, out, err = llmft(*line, "baseline=false", "output_dir=run")
    assert code == 0, err
    assert "rows of sample:keyword_qa.json, computed in float32" in out
    assert "), bfloat16, prompt chat" in err
    trained = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    kept = stored_config(tmp_path / "run" / "config.yaml").evaluate.rows
    assert (kept, trained["rows"], "evaluate: all 6 validation rows\n" in err) == (6, 6, True)
    same = ("evaluate", "run=run", "evaluate.resamples=100", "report.write=false", "format=json")
    code, out, err = llmft(*same, "evaluate.dtype=float32", "evaluate.batch_tokens=60")
    assert code == 0, err
    float32 = json.loads(out.splitlines()[-1])
    bfloat16 = json.loads(llmft(*same)[1].splitlines()[-1])
    assert [found["dtype"] for found in (trained, float32, bfloat16)] == ["float32", "float32", "bfloat16"]
    for which in ("base", "tuned"):
        losses = [found["scores"]["loss"][which] for found in (trained, float32, bfloat16)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        assert losses[2] != pytest.approx(losses[0], rel=1e-5)
    assert "computed in bfloat16, 95 % bootstrap intervals" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_numbers_are_everywhere_the_same(run):
    folder, _ = run
    found = json.loads((folder / "evaluation.json").read_text())["scores"]
    record = json.loads((folder / "run.json").read_text())
    last = list(csv.DictReader((folder / "metrics.csv").open()))[-1]
    for name, entry in found.items():
        assert record["metrics"]["test"][name] == entry["tuned"]
        assert record["metrics"]["test_base"][name] == entry["base"]
        assert (float(last[f"test/{name}"]) if last.get(f"test/{name}") else None) == entry["tuned"]
    rows = read_json_lines(folder / "predictions.jsonl")
    for which, nats in (("tuned", "nats"), ("base", "base_nats")):
        mean = sum(row[nats] for row in rows) / sum(row["supervised"] for row in rows)
        assert found["loss"][which] == pytest.approx(mean)
        assert found["perplexity"][which] == pytest.approx(math.exp(mean))
    assert found["loss"]["verdict"] == "better"
    assert found["chrf"]["tuned"] is not None


def test_the_base_is_the_untrained_model(run, load_config):
    folder, _ = run
    backbone = Backbone(load_config("model=tiny_t5" if "full" in str(folder) else "model=tiny_llama").model)
    model, tokenizer = backbone.load().eval(), backbone.tokenizer
    row = read_json_lines(folder / "predictions.jsonl")[0]
    ids = torch.tensor([tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]])
    out = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)
    given = 1 if model.config.is_encoder_decoder else ids.shape[1]
    assert (
        tokenizer.decode(out[0, given:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        == row["base_answer"]
    )


def test_evaluate_gives_what_the_training_gave(run, llmft, tmp_path):
    folder, _ = run
    before = json.loads((folder / "evaluation.json").read_text())
    short = ("evaluate.rows=auto", "evaluate.batch_tokens=150", "output=p.jsonl", "format=json")
    code, out, err = llmft("evaluate", f"run={folder}", *short)
    assert code == 0, err
    again = json.loads(out)
    assert (again["rows"], again["of"]) == (10, 12)  # as many as the run evaluated
    for name, entry in before["scores"].items():
        for which in ("base", "tuned", "difference"):
            expected = entry[which] if entry[which] is None else pytest.approx(entry[which], rel=1e-5, abs=1e-6)
            assert again["scores"][name][which] == expected, (name, which)
    old, new = read_json_lines(folder / "predictions.jsonl"), read_json_lines(tmp_path / "p.jsonl")
    same = ("id", "prompt", "reference", "answer", "base_answer")
    assert [[row[key] for key in same] for row in new] == [[row[key] for key in same] for row in old]
    assert json.loads((folder / "evaluation.json").read_text()) == before  # with output=, the run is left as it is


def test_a_stopped_evaluation_keeps_its_answers(made, llmft, monkeypatch, tmp_path):
    folder, _ = made("lora")
    partial, decode, batches = folder / "predictions.partial.jsonl", Decoder.run, []

    def stopped_at(number):
        def run(self, streams, *rest):
            batches.append(len(streams))
            if len(batches) == number:
                raise KeyboardInterrupt
            decode(self, streams, *rest)

        return run

    line = (
        "evaluate",
        f"run={folder}",
        "evaluate.rows=10",
        "evaluate.batch_tokens=150",
        "output=p.jsonl",
        "format=json",
    )
    monkeypatch.setattr(Decoder, "run", stopped_at(3))
    code, _, err = llmft(*line)
    assert code == 130
    assert f"to resume: python -m llmft evaluate run={folder} evaluate.rows=10" in err
    assert len(partial.read_text().splitlines()) == sum(batches[:2])
    monkeypatch.setattr(Decoder, "run", stopped_at(None))
    batches.clear()
    code, _, err = llmft(*line)
    assert code == 0, err
    assert "answers of the tuned model exist" in err
    assert 10 < sum(batches) < 20  # the rest of the tuned model's, and the base's
    answers = [row["answer"] for row in read_json_lines(tmp_path / "p.jsonl")]
    assert answers == [row["answer"] for row in read_json_lines(folder / "predictions.jsonl")]
    assert not partial.exists()


def test_stored_answers_are_scored_without_a_model(run, llmft, monkeypatch):
    folder, _ = run
    before = json.loads((folder / "evaluation.json").read_text())["scores"]
    monkeypatch.setattr(backbone, "load_model", None)
    code, out, err = llmft("evaluate", f"input={folder / 'predictions.jsonl'}", "format=json", "evaluate.keywords=true")
    assert code == 0, err
    found = json.loads(out)["scores"]
    for name in before:
        if before[name]["tuned"] is not None:
            assert found[name]["tuned"] == pytest.approx(before[name]["tuned"])
            assert found[name]["difference_interval"] == pytest.approx(before[name]["difference_interval"])
    code, out, err = llmft("evaluate", f"input={folder / 'with-response.json'}", "format=json")
    assert code == 0, err
    assert json.loads(out)["scores"]["chrf"]["tuned"] == pytest.approx(before["chrf"]["tuned"])


def test_the_alpaca_file(run):
    folder, _ = run
    rows = json.loads((folder / "with-response.json").read_text())
    predictions = read_json_lines(folder / "predictions.jsonl")
    assert [set(row) for row in rows] == [{"instruction", "input", "output", "model_response"}] * 10
    assert [(row["output"], row["model_response"]) for row in rows] == [
        (p["reference"], p["answer"]) for p in predictions
    ]


def test_other_rows_and_changed_rows(llmft, tmp_path):
    rows = [chat_row(f"Question {n}?", f"Answer {n}.") for n in range(20)]
    file = write_rows(tmp_path / "rows.jsonl", *rows)
    common = (
        "model=tiny_gpt2",
        f"data.path={file}",
        "trainer.max_steps=1",
        "generation.max_new_tokens=4",
        "evaluate.rows=0",
        "report.write=false",
    )
    code, _, err = llmft(*common, *FAST, "output_dir=run")
    assert code == 0, err
    assert not (tmp_path / "run" / "predictions.jsonl").exists()
    other = write_rows(tmp_path / "other.jsonl", *(chat_row(f"Other {n}?", "Yes.") for n in range(7)))
    known = write_rows(tmp_path / "known.jsonl", *(chat_row(f"QUESTION  {n}?", "Yes.") for n in range(20)))
    few = ("evaluate.base=false", "generation.max_new_tokens=1", "format=json")
    code, out, err = llmft("evaluate", "run=run", f"data.path={known}", *few)
    trained = json.loads((tmp_path / "run" / "run.json").read_text())["data"]["split"]["train"]
    assert json.loads(out)["clean"] | {"scores": None} == {
        "rows": 20 - trained,
        "in_train": trained,
        "unknown": 0,
        "scores": None,
    }
    code, out, err = llmft(
        "evaluate",
        "run=run",
        f"data.path={other}",
        "data.limit=6",
        "output=o.jsonl",
        "format=json",
        "evaluate.base=false",
    )
    assert code == 0, err
    found = json.loads(out)
    assert (found["rows"], found["split"]) == (6, "given")
    assert found["clean"] == {"rows": 6, "in_train": 0, "unknown": 0, "scores": None}
    assert found["headline"].startswith("Not compared with its base: loss ")
    assert "base" not in found["scores"]["loss"]
    assert [row["question"] for row in read_json_lines(tmp_path / "o.jsonl")] == [f"Other {n}?" for n in range(6)]
    assert not (tmp_path / "run" / "predictions.jsonl").exists()
    write_rows(file, *rows, chat_row("New?", "Yes."))
    code, _, err = llmft("evaluate", "run=run")
    assert (code, "has changed since the training" in err) == (2, True)
    file.unlink()
    code, _, err = llmft("evaluate", "run=run")
    assert (code, "its data cannot be read" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "pass either run=RUN or input=FILE"),
        (("input=none.jsonl",), "must be an existing .jsonl or .json file of predictions"),
        (("input=bad.jsonl",), "bad.jsonl:1: answer: is missing"),
        (("input=bad.jsonl",), "bad.jsonl:2: row: broken JSON"),
        (("input=bad.jsonl",), "bad.jsonl:3: ended: must be true, false or null"),
        (("input=good.jsonl", "evaluate.resamples=3"), "evaluate.resamples=3: must be a whole number of at least 100"),
        (
            ("input=good.jsonl", "evaluate.seeds=[1,2]"),
            "evaluate.seeds=[1, 2]: greedy and beam search give the same answers for each seed",
        ),
        (("input=good.jsonl", "judge=openai", "judge.url=ftp://x"), "judge.url=ftp://x: must be http"),
        (("input=good.jsonl", "output=/nowhere/x.jsonl"), "there is no folder /nowhere"),
    ],
)
def test_faults_are_named(arguments, message, llmft, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "bad.jsonl").write_text(
        '{"reference": "x"}\n{"reference"\n{"reference": "x", "answer": "y", "ended": 1}\n'
    )
    write_rows(tmp_path / "good.jsonl", {"reference": "x", "answer": "y"})
    code, _, err = llmft("evaluate", *arguments)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("name", ["tiny_t5", "tiny_llama"])
def test_losses_and_answers_do_not_depend_on_batches(name, load_config):
    model, codec = sharpened(name, load_config)
    forward = Backbone(load_config(f"model={name}").model).family(model)
    rows = [codec.encode(codec.template.render(context), "a" * (3 + 5 * n)) for n, context in enumerate(CONTEXTS)]
    alone = row_losses(forward, rows, codec.tokenizer.pad_token_id, 1)
    together = row_losses(forward, rows, codec.tokenizer.pad_token_id, 10_000)
    assert [n for _, n in alone] == [n for _, n in together] == [row.supervised for row in rows]
    assert [nats for nats, _ in alone] == pytest.approx([nats for nats, _ in together], rel=1e-5)
    batch = {"input_ids": torch.tensor([rows[1].input_ids]), "labels": torch.tensor([rows[1].labels])}
    with torch.no_grad():
        plain = model.eval()(**batch).loss * rows[1].supervised
    assert alone[1][0] == pytest.approx(float(plain), rel=1e-5)
    forward.kernels = Kernels(by_length=True, varlen=True, shared_prefix="exact")
    fast = row_losses(forward, rows, codec.tokenizer.pad_token_id, 10_000)
    assert (forward.kernels.packing_is_equivalent, forward.kernels.head_is_last) == (True, True)
    assert fast == [(pytest.approx(nats, rel=1e-5), n) for nats, n in together]
    generator = Generator(model, codec, {"max_new_tokens": 12, "batch_size": 2, "seed": 0})
    single = [generator.answers([context])[0] for context in CONTEXTS]
    for budget in (1, 150, 400, 100_000):
        assert generator.with_settings(batch_tokens=budget).answers(CONTEXTS) == single


def test_batches_keep_to_the_budget(load_config):
    model, codec = sharpened("tiny_llama", load_config)
    generator = Generator(
        model, codec, {"max_new_tokens": 10, "batch_size": 2, "seed": 0, "batch_tokens": 100, "num_beams": 2}
    )
    lengths = [5, 40, 5, 90, 6, 15, 5]
    batches = list(generator.batches(lengths))
    assert sorted(row for batch in batches for row in batch) == list(range(7))
    assert batches == [[0, 2, 6], [4, 5], [1], [3]]  # 3 x 2 x 15 = 90, 2 x 2 x 25 = 100, then alone


def test_self_consistency_takes_the_most_frequent_normal_form():
    told = [Answer("Paris", True, 1), Answer("rome", True, 1), Answer("the Rome!", False, 3)]
    assert majority(told) == Answer("rome", True, 1, votes=2)
    assert majority(told[:2]) == Answer("Paris", True, 1, votes=1)


def test_sampled_answers_vary_with_the_seed_and_are_summed_up(run, llmft):
    folder, _ = run
    sampled = (
        "generation=sample",
        "generation.max_new_tokens=6",
        "generation.samples=2",
        "evaluate.rows=6",
        "evaluate.base=false",
    )
    code, out, err = llmft(
        "evaluate", f"run={folder}", *sampled, "evaluate.seeds=[1,2,3]", "output=o.jsonl", "format=json"
    )
    assert code == 0, err
    found = json.loads(out)
    chrf = found["seeds"]["scores"]["chrf"]
    assert len(set(chrf["values"])) > 1
    assert chrf["mean"] == pytest.approx(sum(chrf["values"]) / 3)
    assert chrf["sd"] == pytest.approx(math.sqrt(sum((v - chrf["mean"]) ** 2 for v in chrf["values"]) / 2))
    assert found["scores"]["chrf"]["tuned"] == chrf["values"][0]
    assert len(set(found["seeds"]["scores"]["loss"]["values"])) == 1
    code, _, err = llmft("evaluate", f"run={folder}", "evaluate.seeds=[1,2]")
    assert (code, "add generation=sample" in err) == (2, True)


def test_a_generated_score_can_be_the_objective(llmft, tmp_path):
    code, _, err = llmft(
        "model=tiny_llama", "data=keyword_qa", "objective=val/chrf", "evaluate.in_training=true", "evaluate.rows=4", "evaluate.base=false",
        "trainer.max_steps=20", "trainer.val_check_interval=5", "trainer.max_epochs=9", "generation.max_new_tokens=12", "output_dir=run",
        "optim.lr=1e-2", "callbacks.early_stopping.patience=9", "report.write=false", "baseline=false", *FAST,
    )  # fmt: skip
    assert code == 0, err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    values = {int(row["step"]): float(row["val/chrf"]) for row in rows if row["val/chrf"]}
    assert len(set(values.values())) > 1
    assert record["objective"] == max(values.values()) == record["metrics"]["after"]["val/chrf"]
    assert values[record["metrics"]["best_step"]] == max(values.values())


def test_any_logged_metric_stops_early_and_chooses_the_best(llmft, tmp_path):
    code, _, err = llmft(
        "model=tiny_gpt2", "data=keyword_qa", "data.batch_size=4", "callbacks.early_stopping.monitor=train/loss", "callbacks.early_stopping.patience=2",
        "objective=train/grad_norm", "trainer.max_epochs=99", "trainer.max_steps=60", "trainer.val_check_interval=2", "trainer.log_every_n_steps=1", "optim.lr=1e-5",
        "evaluate.rows=0", "report.write=false", "output_dir=run", *FAST,
    )  # fmt: skip
    assert code == 0, err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    rows = [
        row
        for row in csv.DictReader((tmp_path / "run" / "metrics.csv").open())
        if row["val/loss"] and row["train/loss"]
    ]
    losses = [float(row["train/loss"]) for row in rows]
    assert record["metrics"]["steps"] == int(rows[-1]["step"]) < 60
    assert losses.index(min(losses)) == len(losses) - 3  # two validations without a better one
    norms = {int(row["step"]): float(row["train/grad_norm"]) for row in rows}
    assert record["objective"] == min(norms.values()) == norms[record["metrics"]["best_step"]]


def test_objectives_are_checked(llmft):
    code, _, err = llmft("model=tiny_gpt2", "objective=val/bleu")
    assert (code, "val/bleu: is only logged with evaluate.in_training=true" in err) == (2, True)
    code, _, err = llmft("model=tiny_gpt2", "objective=val/blue", "evaluate.in_training=true")
    assert (code, "Did you mean val/bleu?" in err) == (2, True)


def test_off_is_off(load_config):
    cfg, nothing = load_config("model=tiny_gpt2"), cast(Any, None)
    generator = Generator(*sharpened("tiny_gpt2", load_config), cfg.generation.node())
    assert GenerationMetrics(enabled=False, generator=generator, cfg=cfg, datamodule=nothing).rows is None


def test_a_base_is_the_adapter_switched_off(load_config):
    from peft import LoraConfig, get_peft_model

    model, _ = sharpened("tiny_llama", load_config)
    ids = torch.arange(5, 20)[None]
    plain = model.eval()(ids).logits.detach().clone()
    tuned = get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False)).eval()
    assert not torch.allclose(tuned(ids).logits, plain)
    with trainable.base_of(tuned):
        assert torch.equal(tuned(ids).logits, plain)
    assert not torch.allclose(tuned(ids).logits, plain)
