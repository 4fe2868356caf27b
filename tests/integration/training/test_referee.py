"""The referee agrees with the training as it is, and sees faults that are planted in it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llmft import train
from llmft.callbacks.gradient_clipping import GradientClipping
from llmft.commands.prove import prove
from llmft.config.auto_values import resolve_auto
from llmft.data.batching.collate import PackedDataset
from llmft.data.batching.sampler import PlannedBatchSampler
from llmft.data.tokenization.codec import EncodedExample
from llmft.models import causal
from llmft.models.causal import CausalForward
from llmft.models.module import InstructionModule
from llmft.models.peft import trainable
from llmft.referee import files
from llmft.training import build
from tests.support import twins
from tests.support.digests import digest

TINY = (
    "data=alpaca", "data.path=sample", "data.limit=18", "data.split.val=0", "data.cache=off", "data.batch_size=3",
    "model.dropout=0", "prove.steps=3", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=2", "optim.lr=1e-3",
    "optim.weight_decay=0.1", "callbacks.gradient_clipping.max_norm=0.5",
)  # fmt: skip
FULL = ("model=tiny_gpt2", "peft=none")
LORA = ("model=tiny_llama", "peft=lora", "peft.dropout=0", "peft.r=2", "peft.alpha=8")
T5 = ("model=tiny_t5", "peft=none")
PACKED = ("data.batching=packed", "data.pack_tokens=600", "performance=plain")


@pytest.fixture
def proven(load_config: Any) -> Callable[..., dict[str, Any]]:
    """The result of ``prove`` for overrides."""

    def of(*overrides: str) -> dict[str, Any]:
        config = load_config(*overrides, *TINY, command="prove")
        return prove(resolve_auto(config)[0])

    return of


@pytest.mark.parametrize(
    "overrides",
    [
        FULL,
        (*LORA, "scheduler=cosine"),
        pytest.param((*T5, "scheduler=constant"), marks=pytest.mark.slow),
        pytest.param((*FULL, *PACKED), marks=pytest.mark.slow),
        pytest.param((*T5, *PACKED, "data.pack_tokens=300"), marks=pytest.mark.slow),
        pytest.param((*LORA, "peft=dora", "trainer.precision=bf16-mixed"), marks=pytest.mark.slow),
        pytest.param((*LORA, "peft=rslora", "model.dtype=bfloat16"), marks=pytest.mark.slow),
        pytest.param((*FULL, "data.batching=grouped", "prompt=plain", "data.train_on=all"), marks=pytest.mark.slow),
        pytest.param((*FULL, "model=tiny_gemma", "peft=head", "scheduler=plateau", "scheduler.patience=1"), marks=pytest.mark.slow),
    ],
    ids=lambda overrides: "-".join(part.partition("=")[2] for part in overrides if not part.startswith("peft.")),
)  # fmt: skip
def test_the_training_is_computed_again(overrides, proven):
    found = proven(*overrides)
    assert found["agrees"], found["sentence"]
    assert found["steps"] >= 2
    assert found["not_checked"] == {}
    assert found["rendered"] == sum(len(step["rows"]) for step in found["per_step"]) > 0
    bfloat16 = any("16" in part for part in overrides[-2:])
    assert found["largest"] < (2e-2 if bfloat16 else 1e-5)


def _labels(changed: Callable[[EncodedExample], list[int]]) -> Callable[[pytest.MonkeyPatch], None]:
    """Change the labels of every example as it is loaded; what is encoded wrongly is refused before a training."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = PackedDataset.__getitem__

        def load(self: Any, pack: Any) -> list[EncodedExample]:
            return [replace(row, labels=changed(row)) for row in real(self, pack)]

        patch.setattr(PackedDataset, "__getitem__", load)

    return plant


def _targets_shifted_twice(patch: pytest.MonkeyPatch) -> None:
    def targets(self: Any, batch: dict[str, Any]) -> torch.Tensor:  # noqa: ARG001
        found = torch.full_like(batch["labels"], -100)
        found[:, :-2] = batch["labels"][:, 2:]
        return found

    patch.setattr(CausalForward, "targets", targets)


def _means_of_micro_batches(patch: pytest.MonkeyPatch) -> None:
    step, close = InstructionModule.training_step, InstructionModule._close_window

    def training_step(self: Any, batch: Any, batch_idx: int) -> torch.Tensor:
        before = self.train_sums.tokens.clone()
        return step(self, batch, batch_idx) / (self.train_sums.tokens - before)

    def close_window(self: Any, optimizer: Any) -> None:
        close(self, optimizer)
        mean = self.window_tokens / self.trainer.accumulate_grad_batches
        for p in self.parameters():
            if p.grad is not None:
                p.grad.mul_(mean)
        self.grad_norm *= mean

    patch.setattr(InstructionModule, "training_step", training_step)
    patch.setattr(InstructionModule, "_close_window", close_window)


def _no_clipping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GradientClipping, "on_before_optimizer_step", lambda *_: None)


def _clipping_of_sums(patch: pytest.MonkeyPatch) -> None:
    """Clip before the division by the number of tokens."""
    close = InstructionModule._close_window

    def close_window(self: Any, optimizer: Any) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters(), 0.5)
        close(self, optimizer)

    patch.setattr(InstructionModule, "_close_window", close_window)


def _schedule_one_step_ahead(patch: pytest.MonkeyPatch) -> None:
    real = build._schedule

    def ahead(cfg: Any, data: Any) -> Any:
        def schedule(optimizer: Any) -> Any:
            made = real(cfg, data)(optimizer)
            optimizer._opt_called = True  # or torch warns that the first rate is skipped
            made.step()
            return made

        return schedule

    patch.setattr(build, "_schedule", ahead)


def _optimizer(make: Callable[[list[Any], dict[str, Any]], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Another optimizer for the trainable parameters."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(torch.optim, "AdamW", lambda params, **options: make(list(params), options))

    return plant


def _coupled(params: list[Any], options: dict[str, Any]) -> Any:
    return torch.optim.Adam(params, **options)


def _matrices_only(params: list[Any], options: dict[str, Any]) -> Any:
    real = torch.optim.Adam
    groups = [
        {"params": [p for p in params if p.ndim > 1]},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    return real(groups, decoupled_weight_decay=True, **options)


class _Biased(torch.optim.Optimizer):
    """AdamW without bias correction."""

    def __init__(self, params: list[Any], options: dict[str, Any]) -> None:
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = torch.enable_grad()(closure)()
        group = self.param_groups[0]
        for p in (p for p in group["params"] if p.grad is not None):
            state = self.state[p] or {"m": torch.zeros_like(p), "v": torch.zeros_like(p)}
            self.state[p] = state
            state["m"].lerp_(p.grad, 1 - group["betas"][0])
            state["v"].lerp_(p.grad**2, 1 - group["betas"][1])
            p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * state["m"] / (state["v"].sqrt() + 1e-8))
        return loss


def _a_row_twice(patch: pytest.MonkeyPatch) -> None:
    real = PlannedBatchSampler.__iter__

    def twice(self: Any) -> Iterator[Any]:
        first, _, *rest = real(self)
        yield from (first, first, *rest)

    patch.setattr(PlannedBatchSampler, "__iter__", twice)


def _lora_scaled_twice(patch: pytest.MonkeyPatch) -> None:
    real = trainable.adapt

    def adapt(*args: Any) -> Any:
        model = real(*args)
        for module in model.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling = {name: 2 * scale for name, scale in module.scaling.items()}
        return model

    patch.setattr(trainable, "adapt", adapt)


def _packed_positions_go_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(causal, "positions_in_rows", lambda rows: torch.arange(rows.shape[1]).expand_as(rows))


QUIET = (
    "evaluate.rows=0", "baseline=false", "questions=0", "callbacks.samples.number=0", "callbacks.progress.refresh_rate=0",
    "report.write=false", "logger=none",
)  # fmt: skip
SLOW = pytest.mark.slow
PLANTED = [
    ("labels off by one", FULL, _targets_shifted_twice, "loss"),
    pytest.param("prompt trained", FULL, _labels(lambda row: list(row.input_ids)), "labels", marks=SLOW),
    ("EOS not trained", LORA, _labels(lambda row: [*row.labels[:-1], -100]), "labels"),
    pytest.param("EOS of a target missing", T5, _labels(lambda row: row.labels[:-1]), "labels", marks=SLOW),
    ("means of micro-batches", FULL, _means_of_micro_batches, "gradient norm"),
    pytest.param("means of micro-batches", T5, _means_of_micro_batches, "gradient norm", marks=SLOW),
    ("no clipping", FULL, _no_clipping, "gradient after clipping"),
    pytest.param("clipping before the division", FULL, _clipping_of_sums, "gradient norm", marks=SLOW),
    ("schedule one step ahead", LORA, _schedule_one_step_ahead, "learning rate"),
    pytest.param("coupled weight decay", FULL, _optimizer(_coupled), "update", marks=SLOW),
    pytest.param("weight decay on matrices only", FULL, _optimizer(_matrices_only), "update", marks=SLOW),
    ("no bias correction", FULL, _optimizer(_Biased), "update"),
    ("a row twice", FULL, _a_row_twice, "row order"),
    ("LoRA scaled twice", LORA, _lora_scaled_twice, "gradient norm"),
    pytest.param("packed rows see each other", (*FULL, *PACKED), _packed_positions_go_on, "loss", marks=SLOW),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "overrides", "plant", "quantity"),
    PLANTED,
    ids=[getattr(p, "values", p)[0].replace(" ", "_") + "-" + getattr(p, "values", p)[1][0][11:] for p in PLANTED],
)
def test_the_referee_sees_a_planted_fault(name, overrides, plant, quantity, proven, monkeypatch):
    plant(monkeypatch)
    found = proven(*overrides)
    assert not found["agrees"], name
    assert found["parting"]["quantity"] == quantity, found["sentence"]
    assert found["parting"]["step"] <= 2


def test_a_training_has_the_same_numbers_with_a_referee(tmp_path: Path):
    tiny = (*FULL, *TINY, *QUIET, "trainer.max_steps=4", "peft.default_lr=1e-3")
    with_referee = train([*tiny, f"output_dir={tmp_path / 'with'}"])
    without = train([*tiny, "prove.steps=0", f"output_dir={tmp_path / 'without'}"])
    proof = with_referee.record["prove"]
    assert (proof["agrees"], proof["steps"]) == (True, 3), proof["sentence"]
    assert "prove" not in without.record
    assert files._rows.cache_info().currsize == 0  # freed after the last of these steps
    for name in ("steps.csv", "model/model.safetensors"):
        assert digest(with_referee.path / name) == digest(without.path / name), name


@pytest.mark.slow
@pytest.mark.parametrize("name", [*twins.SEQ2SEQ, *twins.CAUSAL])
def test_every_architecture_is_computed_again(name, proven, tmp_path):
    found = proven(*twins.build(name, tmp_path / name), "peft=none")
    assert found["agrees"], found["sentence"]
    assert found["largest"] < 1e-5
