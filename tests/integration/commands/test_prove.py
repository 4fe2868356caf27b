"""``prove`` as a user runs it: what it prints, its exit codes, and what it refuses."""

import json
from pathlib import Path

import pytest

from llmft.callbacks.gradient_clipping import GradientClipping

TINY = ("model=tiny_gpt2", "data=alpaca", "data.path=sample", "data.limit=12", "data.batch_size=3", "peft=none", "prove.steps=2")  # fmt: skip


def test_a_training_that_agrees_leaves_nothing_behind(llmft, tmp_path):
    code, out, err = llmft("prove", *TINY, "model.dropout=0", "format=json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert (found["steps"], found["agrees"], found["parting"], found["rendered"]) == (2, True, None, 6)
    assert [len(step["rows"]) for step in found["per_step"]] == [3, 3]
    assert found["sentence"].startswith("training arithmetic agrees to ")
    assert not list(tmp_path.iterdir())


def test_a_training_that_parts_ends_with_3(llmft, monkeypatch):
    monkeypatch.setattr(GradientClipping, "on_before_optimizer_step", lambda *_: None)
    code, out, err = llmft("prove", *TINY, "model.dropout=0")
    assert code == 3
    assert "training and referee diverge at step 1: gradient after clipping differs by" in err
    assert "learning rate" in out


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "transformer.drop.p is 0.1; set model.dropout=0"),
        pytest.param(("peft=lora", "model.dropout=0"), "set peft.dropout=0", marks=pytest.mark.slow),
        pytest.param(("peft=qlora", "peft.dropout=0"), "weights in 4 or 8 bits (peft.quantise=nf4) have no float64 copy; use", marks=pytest.mark.slow),
        (("optim=adamw_8bit",), "computes torch.optim.AdamW, not llmft.models.optimizer.bnb_adamw; use optim=adamw"),
        pytest.param(("+optim.amsgrad=true",), "does not compute optim.amsgrad; leave it out", marks=pytest.mark.slow),
        pytest.param(("peft=unfreeze",), "trains the same parameters in every step", marks=pytest.mark.slow),
        pytest.param(("trainer=ddp", "trainer.devices=2"), "the referee follows one process", marks=pytest.mark.slow),
        (("prove.steps=0",), "nothing to prove"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)  # fmt: skip
def test_what_the_referee_cannot_compute_is_refused(overrides, words, llmft):
    code, _, err = llmft("prove", *TINY, *overrides)
    assert code == 2
    assert words in err


def test_a_resumed_training_is_refused(llmft):
    run = Path(__file__).parents[2] / "fixtures" / "d3bab6a" / "run"
    code, _, err = llmft("prove", *TINY, f"resume={run}")
    assert code == 2
    assert "a resumed training does not take its first steps" in err


def test_a_float64_copy_that_does_not_fit_is_refused_with_the_figures(llmft, monkeypatch):
    monkeypatch.setattr("llmft.training.prove.free_bytes", lambda device: 2**20)  # noqa: ARG005
    code, _, err = llmft("prove", *TINY, "model.dropout=0")
    assert code == 2
    # 378,688 parameters, all trainable: 8 + 24 + 20 bytes each
    assert "takes 0.0183 GiB, and 0.000977 GiB are free" in err


def test_a_model_that_cannot_run_in_float64_is_refused(llmft, monkeypatch):
    def probe(_):
        raise RuntimeError("no kernel for Double")

    monkeypatch.setattr("llmft.referee.loop.Loop.probe", probe)
    code, _, err = llmft("prove", *TINY, "model.dropout=0")
    assert code == 2
    assert "prove.steps=2: this model cannot run in float64 (no kernel for Double); set prove.steps=0" in err
