"""Retention of tiny models: the numbers of plain torch, and the same during a training and after it."""

import json

import pytest
import torch

from llmft import train
from llmft.data.records import Turn
from llmft.evaluation.retention.divergence import divergences, top_tokens
from llmft.evaluation.retention.retention import with_answer
from llmft.models.backbone.load import family_of
from llmft.models.backbone.open import Backbone
from tests.integration.conftest import SHORT

ROWS = [("facts", "What is water?", "H2O"), ("talk", "Hello!", "Hello, how are you?"), ("talk", "Bye.", "Goodbye!")]


@pytest.fixture
def rows(tmp_path):
    file = tmp_path / "general.jsonl"
    lines = [json.dumps({"category": c, "instruction": q, "output": a}) for c, q, a in ROWS]
    file.write_text("\n".join(lines))
    return str(file)


def trained(folder, rows, *overrides):
    run = train([*SHORT, "data=alpaca", f"evaluate.retention={rows}", f"output_dir={folder}", *overrides])
    return run, run.record["retention"]


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_t5"])
def test_kl_is_that_of_the_full_softmax(name, load_config):
    cfg = load_config(f"model={name}")
    backbone = Backbone.open(cfg)
    base, tuned = (family_of(cfg.model)(backbone.load()) for _ in range(2))
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in tuned.model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    codec = backbone.codec
    row = codec.encode(codec.template.render((Turn("user", "What is water?"),)), "H2O")
    answers = [with_answer(row, [5, 6, 7]), with_answer(row, [8])]
    found = divergences(tuned, answers, top_tokens(base, answers, 0, 4096), 0, 4096)
    expected = [_kl(base.model, tuned.model, row, answer) for answer in ([5, 6, 7], [8])]
    assert [tokens for _, tokens in found] == [3, 1]
    assert [nats for nats, _ in found] == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 0.01


def _kl(base, tuned, row, answer):
    """Sum over the answer's positions, in plain torch."""
    prompt = row.input_ids[: row.prompt_length]

    def log_probs(model):
        model.eval()
        if model.config.is_encoder_decoder:
            start = [model.config.decoder_start_token_id]
            inputs = {"input_ids": torch.tensor([prompt]), "decoder_input_ids": torch.tensor([start + answer[:-1]])}
            return model(**inputs).logits[0].log_softmax(-1)
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
        return logits[len(prompt) - 1 : -1].log_softmax(-1)

    with torch.no_grad():
        p, q = log_probs(base), log_probs(tuned)
    return float((p.exp() * (p - q)).sum())


def test_changed_answers_alone_flag_nothing(tmp_path, rows):
    run, found = trained(
        tmp_path / "run", rows, "model=tiny_llama", "peft=lora", "optim.lr=1e-3", "evaluate.retention_answers=true",
        "trainer.max_steps=8",
    )  # fmt: skip
    assert found["changed"] > 0
    assert found["flagged"] is False
    assert found["rows"] == 3
    assert found["categories"]["talk"]["rows"] == 2
    assert 0 < found["kl"] < 0.1
    last = (run.path / "metrics.csv").read_text().splitlines()[-1]
    assert str(found["kl"])[:8] in last


@pytest.mark.parametrize("model", ["tiny_gpt2", pytest.param("tiny_t5", marks=pytest.mark.slow)])
def test_a_training_that_forgets_is_flagged_and_evaluate_measures_the_same(model, tmp_path, rows, llmft):
    run, found = trained(tmp_path / "run", rows, f"model={model}", "peft=none", "optim.lr=0.1", "evaluate.rows=2")
    assert found["flagged"] is True
    assert found["kl"] > 1
    assert "what it forgot: " in found["sentence"]
    code, _, err = llmft("evaluate", f"run={run.path}", f"evaluate.retention={rows}", "evaluate.rows=2")
    assert code == 0, err
    again = json.loads((run.path / "evaluation.json").read_text())["retention"]
    # full fine-tuning: the base was measured before the first step there, and loaded again here
    for name in ("loss_before", "loss_after", "kl"):
        assert again[name] == pytest.approx(found[name], rel=1e-4)
    record = json.loads((run.path / "run.json").read_text())
    assert record["retention"]["kl"] == again["kl"]
    assert "it forgot (retention)" in record["verdict"]["reasons"]


@pytest.mark.slow
def test_a_later_evaluation_keeps_the_result(tmp_path, rows, llmft):
    run, found = trained(tmp_path / "run", rows, "model=tiny_gpt2", "peft=lora", "evaluate.rows=2")
    code, _, err = llmft("evaluate", f"run={run.path}", "evaluate.rows=2")
    assert code == 0, err
    assert json.loads((run.path / "evaluation.json").read_text())["retention"]["kl"] == found["kl"]


def test_stored_answers_have_no_base(llmft, tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"instruction": "a", "input": "", "output": "b", "model_response": "b"}\n')
    code, _, err = llmft("evaluate", "input=answers.jsonl", "evaluate.retention=shipped")
    assert code == 2
    assert "evaluate.retention=shipped: compares two models" in err
