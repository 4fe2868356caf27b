"""``Referee``: follows a training, computes each of its first optimizer steps again, and compares."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmft.referee.compare import Proof, relative
from llmft.referee.float64 import UPDATED
from llmft.referee.loop import Loop, Settings
from llmft.referee.optimizer import AdamW, Schedule, clip_factor
from llmft.referee.render import NotRendered, Rendered, Renderer
from llmft.referee.rows import TrainedRow

# Differences are relative to the loss, but to 1 nat below that, and to the gradient norm, but to a tenth of the first step's
# below that: roundings do not become smaller with the loss of an overfitted batch.
NATS, SMALL = 1.0, 0.1


@dataclass(frozen=True)
class TrainedStep:
    """An optimizer step of the training.

    Attributes:
        epoch: From 0.
        window: The examples of each micro-batch.
        ends_epoch: Whether it is the last of its epoch, so that its window may be short.
        numbers: ``loss``, ``grad_norm`` (before clipping) and ``lr``, as the training logs them.
    """

    epoch: int
    window: Sequence[Sequence[TrainedRow]]
    ends_epoch: bool
    numbers: dict[str, float]

    @property
    def rows(self) -> list[TrainedRow]:
        """The examples of the accumulation window."""
        return [row for batch in self.window for row in batch]


class Referee:
    """Computes each step of a training again.

    Args:
        model: The training's, before its first step; its gradients and weights are read after each step.
        settings: From the config.
        schedule: From the config.
        renderer: Renders the rows again.
        precision: Of the training's matrix products: ``float32`` or ``bfloat16``.
    """

    def __init__(self, model: Any, settings: Settings, schedule: Schedule, renderer: Renderer, precision: str) -> None:
        self.settings, self.schedule, self.renderer = settings, schedule, renderer
        self.proof, self.loop = Proof(precision), Loop(model, settings, schedule)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.update = UpdateCheck(self.trained, AdamW(settings.betas, settings.eps, settings.weight_decay))
        if self.update.left_out:
            self.proof.not_checked["updates of parameter tensors"] = self.update.left_out
        self.seen: tuple[int, set[Any]] = (0, set())
        self.first_norm = 0.0

    def check(self, step: TrainedStep) -> None:
        """Compare a step; after it, before the gradients are set to zero."""
        rows = step.rows
        self._check_rows(rows)
        self._check_order(step, rows)
        own = self.loop.step(rows)
        numbers = {"loss": own.loss, "grad_norm": own.grad_norm, "lr": own.lr}
        self.first_norm = self.first_norm or own.grad_norm
        scales = {"loss": max(own.loss, NATS), "grad_norm": max(own.grad_norm, SMALL * self.first_norm), "lr": own.lr}
        differences = {name: relative(step.numbers[name], value, scales[name]) for name, value in numbers.items()}
        gradients = {name: p.grad for name, p in self.trained.items() if p.grad is not None}
        clipped = scales["grad_norm"] * clip_factor(own.grad_norm, self.settings.max_norm)
        differences["gradient"] = relative(_distance(gradients, own.gradients), 0.0, clipped)
        differences["update"] = self.update.difference(own.lr)
        self.proof.add(step.numbers, numbers, differences, [row.place for row in rows])

    def _check_order(self, step: TrainedStep, rows: Sequence[TrainedRow]) -> None:
        """Each example at most once an epoch, all of them at its end; each window as long as configured."""
        wanted, found = self.settings.accumulate, len(step.window)
        if found > wanted or (found < wanted and not step.ends_epoch):
            self.proof.part("accumulation", f"{found} micro-batches in the window, {wanted} in the config")
        epoch, seen = self.seen
        seen = seen if epoch == step.epoch else set()
        if self.settings.train_rows is None:
            return
        for row in rows:
            if row.identity in seen:
                self.proof.part("row order", f"{row.place} twice in epoch {step.epoch}")
            seen.add(row.identity)
        if step.ends_epoch and len(seen) != self.settings.train_rows:
            self.proof.part("row order", f"{len(seen)} of {self.settings.train_rows} examples in epoch {step.epoch}")
        self.seen = step.epoch, seen

    def _check_rows(self, rows: Sequence[TrainedRow]) -> None:
        """Compare ids and labels with those rendered from the file."""
        for row in rows:
            try:
                own = self.renderer.render(row.place)
            except (NotRendered, ValueError, TypeError, AttributeError, LookupError) as error:
                # a row or a file of another form than the rules expect must not end the training
                why = error if isinstance(error, NotRendered) else f"{type(error).__name__} in its row or file"
                self.proof.not_checked[f"ids: {why}"] = self.proof.not_checked.get(f"ids: {why}", 0) + 1
                continue
            self.proof.rendered += 1
            if difference := _difference(row, own):
                self.proof.part(*difference)


class UpdateCheck:
    """The update of each weight against AdamW's formula on the training's own gradient; of the smallest tensors first.

    Args:
        weights: Trainable parameters by name.
        optimizer: The formula.
    """

    def __init__(self, weights: dict[str, Tensor], optimizer: AdamW) -> None:
        self.optimizer, self.weights, total = optimizer, {}, 0
        for name, weight in sorted(weights.items(), key=lambda item: item[1].numel()):
            total += weight.numel()
            if total <= UPDATED:
                self.weights[name] = weight
        self.left_out = len(weights) - len(self.weights)
        self.before = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def difference(self, lr: float) -> float:
        """The largest deviation of a step, in roundings of a float32 weight (and of its step, whose moments are rounded)."""
        worst = 0.0
        with torch.no_grad():
            for name, weight in self.weights.items():
                if weight.grad is None:
                    expected = self.before[name].double()
                else:
                    expected = self.optimizer.updated(name, self.before[name], weight.grad, lr)
                rounding = 2.0**-24 * torch.maximum(weight.abs(), self.before[name].abs()).double() + 1e-6 * lr
                worst = max(worst, float(((weight.double() - expected).abs() / (rounding + 1e-45)).max()))
                self.before[name].copy_(weight)
        return worst


def _distance(gradients: dict[str, Tensor], own: dict[str, Tensor]) -> float:
    """The norm of the difference of two gradients."""
    if set(gradients) != set(own):
        return math.inf
    return math.sqrt(sum(float(((gradients[name].double() - g) ** 2).sum()) for name, g in own.items()))


def _difference(row: TrainedRow, own: Rendered) -> tuple[str, str] | None:
    """The first difference between a trained example and the rendered one."""
    weights = set(row.weights or [1.0])
    if own.weight not in weights:
        return "weight", f"of {row.place}: {sorted(weights)} in the training, {own.weight} in its file"
    for name in ("input_ids", "labels"):
        trained, rendered = getattr(row, name), getattr(own, name)
        if trained != rendered:
            pairs = zip(trained, rendered, strict=False)
            at = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(trained), len(rendered)))
            values = [ids[at] if at < len(ids) else "none" for ids in (trained, rendered)]
            return (
                name,
                f"of {row.place} at token {at}: {values[0]} in the training, {values[1]} rendered from its file",
            )
    return None
