"""What is broken is stopped: exit code 3, step and rows named, no broken weights kept."""

import json

import pytest
import torch

from llmft.callbacks.nan_guard import NanGuard
from llmft.errors import Halted
from llmft.models import backbone
from llmft.models.base import InstructionModule

RUN = (
    "model=tiny_gpt2",
    "data=alpaca",
    "peft=none",
    "output_dir=run",
    "questions=0",
    "evaluate.rows=0",
    "report.write=false",
    "callbacks.samples.number=0",
    "trainer.max_steps=8",
)


def record_of(tmp_path):
    return json.loads((tmp_path / "run" / "run.json").read_text())


def test_a_planted_nan_halts_the_run(llmft, tmp_path, monkeypatch):
    real = backbone.load_model

    def planted(*arguments):
        model = real(*arguments)
        with torch.no_grad():
            model.transformer.h[1].mlp.c_fc.weight[0, 0] = float("nan")
        return model

    monkeypatch.setattr(backbone, "load_model", planted)
    code, _, err = llmft(*RUN, "baseline=false")
    assert code == 3
    cause = "1 weights are not finite, first: transformer.h.1.mlp.c_fc.weight"
    assert f"halted at step 1, epoch 0: the loss is nan ({cause}). Rows of the step: sample:alpaca.json:" in err
    assert record_of(tmp_path)["status"] == "halted"
    assert "halted at step 1" in record_of(tmp_path)["reason"]
    assert not list((tmp_path / "run").glob("checkpoints/*.ckpt"))


def test_a_gradient_that_breaks_later_leaves_the_last_good_checkpoint(llmft, tmp_path, monkeypatch):
    real = InstructionModule.training_step

    def breaks(self, batch, batch_idx):
        loss = real(self, batch, batch_idx)
        if self.trainer.global_step == 13:
            self.model.lm_head.weight.register_hook(lambda grad: grad * float("inf"))
        return loss

    monkeypatch.setattr(InstructionModule, "training_step", breaks)
    code, _, err = llmft(*RUN, "trainer.max_steps=20")
    assert code == 3
    assert "halted at step 14, epoch 1: the gradient of" in err
    for name in ("last", "best"):
        state = torch.load(tmp_path / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert state["global_step"] == 11
        assert all(torch.isfinite(tensor).all() for tensor in state["state_dict"].values())
    steps = [line.partition(",")[0] for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == ["0", "1", "10", "11", "13"]


def test_an_exploding_learning_rate_halts_the_run(llmft):
    code, _, err = llmft(*RUN, "optim.lr=1e30", "scheduler=constant", "baseline=false")
    assert code == 3, err
    assert "halted at step" in err


def test_a_validation_that_is_not_finite_halts_the_run(llmft, tmp_path):
    code, _, err = llmft(
        *RUN, "peft=none", "optim.lr=1e4", "objective=val/perplexity", "trainer.max_steps=2", "scheduler=constant"
    )
    assert code == 3, err
    assert "val/perplexity is inf" in err
    assert record_of(tmp_path)["status"] == "halted"
    assert not (tmp_path / "run" / "model").exists()


class Watched(InstructionModule):
    """A module at a made-up step."""

    def __init__(self, loss, grad_norm=1.0):
        super().__init__(torch.nn.Linear(2, 1), torch.optim.SGD, lambda optimizer: optimizer)
        self.window_loss, self.grad_norm, self.window_places = loss, grad_norm, [f"f:{n}" for n in range(1, 12)]

    def loss_sum(self, batch):
        raise NotImplementedError


class Trainer:
    """The little that the guard asks of a trainer."""

    global_step, current_epoch, precision = 4, 0, "32-true"


def test_a_loss_of_zero_is_allowed_twice_but_not_three_times_in_a_row():
    guard, trainer = NanGuard(zero_steps=3), Trainer()
    for loss in (0.0, 0.0, 0.1, 0.0, 0.0):
        guard.on_before_optimizer_step(trainer, Watched(loss), None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        Halted,
        match=r"step 5, epoch 0: the loss was exactly 0 for 3 steps: it collapsed. Rows of the step: f:1, .*f:8 and 3 more",
    ):
        guard.on_before_optimizer_step(trainer, Watched(0.0), None)  # pyright: ignore[reportArgumentType]


def test_a_trainable_weight_without_a_gradient_is_named_after_the_first_step():
    trainer, module = Trainer(), Watched(1.0)
    trainer.global_step = 0
    module.model.weight.grad = torch.ones_like(module.model.weight)
    with pytest.raises(Halted, match=r"1 trainable weights have no gradient after the first step \(first: bias\)"):
        NanGuard(zero_steps=3).on_before_optimizer_step(trainer, module, None)  # pyright: ignore[reportArgumentType]


def test_a_weight_that_is_not_finite_reaches_no_checkpoint():
    module = Watched(1.0)
    module.model.bias.data.fill_(float("inf"))
    with pytest.raises(Halted, match=r"the weight bias is not finite"):
        NanGuard(zero_steps=3).on_save_checkpoint(Trainer(), module, {})  # pyright: ignore[reportArgumentType]
