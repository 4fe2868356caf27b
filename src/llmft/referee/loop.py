"""The training loop of the referee: loss, gradient, clipping and update of each optimizer step, one example at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmft.referee.float64 import float64_copy, in_float64
from llmft.referee.optimizer import AdamW, Schedule, clip_factor, norm_of
from llmft.referee.rows import IGNORED, TrainedRow


@dataclass(frozen=True)
class Settings:
    """What the config says about the arithmetic of a training.

    Attributes:
        causal: Whether the model is decoder-only.
        accumulate: Micro-batches of an optimizer step.
        max_norm: Of the gradient; None without clipping.
        betas: Of AdamW.
        eps: Of AdamW.
        weight_decay: Of AdamW, on every trainable parameter.
        lora_scale: Of LoRA matrices; None without.
        train_rows: Examples of an epoch; None if that does not tell when an epoch is complete.
    """

    causal: bool
    accumulate: int
    max_norm: float | None
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    lora_scale: float | None
    train_rows: int | None = None


@dataclass(frozen=True)
class Step:
    """Numbers of an optimizer step.

    Attributes:
        loss: Nats per supervised token, over the accumulation window.
        grad_norm: L2 norm over all trainable parameters, before clipping.
        lr: Learning rate.
        gradients: After clipping, by name.
    """

    loss: float
    grad_norm: float
    lr: float
    gradients: dict[str, Tensor]


class Loop:
    """The training in float64.

    Args:
        model: The training's, before its first step; it is copied.
        settings: From the config.
        schedule: From the config.
    """

    def __init__(self, model: Any, settings: Settings, schedule: Schedule) -> None:
        self.settings, self.schedule, self.done = settings, schedule, 0
        self.model = float64_copy(model, lora_scale=settings.lora_scale)
        self.device: torch.device = next(self.model.parameters()).device
        self.weights = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = AdamW(settings.betas, settings.eps, settings.weight_decay)

    def probe(self) -> None:
        """Run the model forward and backward once, on two tokens; raises what a model raises that cannot run in float64."""
        with in_float64(self.device.type):
            self._nats(TrainedRow("", [1, 1], [IGNORED, 1])).backward()
        self.model.zero_grad()

    def step(self, rows: Sequence[TrainedRow]) -> Step:
        """Take an optimizer step.

        Args:
            rows: The examples of the accumulation window.
        """
        tokens = sum(_supervised(row, causal=self.settings.causal) for row in rows)
        total = 0.0
        with in_float64(self.device.type):
            for row in rows:
                nats = self._nats(row)
                total += nats.item()
                (nats / (tokens or 1)).backward()
        gradients = {name: p.grad for name, p in self.weights.items() if p.grad is not None}
        norm, lr = norm_of(gradients), self.schedule.rate(self.done)
        factor = clip_factor(norm, self.settings.max_norm)
        with torch.no_grad():
            for name, gradient in gradients.items():
                gradient.mul_(factor)
                self.weights[name].copy_(self.optimizer.updated(name, self.weights[name], gradient, lr))
                self.weights[name].grad = None
        self.done += 1
        loss = total / (tokens or 1)
        self.schedule.seen(loss)
        return Step(loss, norm, lr, gradients)

    def _nats(self, row: TrainedRow) -> Tensor:
        """The sum of -log p over the supervised tokens of an example, each times its weight."""
        ids = torch.tensor([row.input_ids], device=self.device)
        if self.settings.causal:
            logits = self.model(input_ids=ids, use_cache=False).logits[0]
        else:
            shifted = [_start(self.model), *row.labels[:-1]]
            pad = self.model.config.pad_token_id or 0
            decoder = torch.tensor([[pad if i == IGNORED else i for i in shifted]], device=self.device)
            logits = self.model(input_ids=ids, decoder_input_ids=decoder, use_cache=False).logits[0]
        chosen = list(_targets(row, causal=self.settings.causal))
        if not chosen:
            return logits.sum() * 0
        at, targets, weights = zip(*chosen, strict=True)
        log_p = logits[list(at)].log_softmax(-1)[range(len(at)), list(targets)]
        return -(log_p * torch.tensor(weights, dtype=torch.float64, device=self.device)).sum()


def _targets(row: TrainedRow, *, causal: bool) -> Iterator[tuple[int, int, float]]:
    """Position of the logits, id to predict, weight; a causal model predicts a label at the position before it."""
    for place, label in enumerate(row.labels):
        if label != IGNORED and not (causal and place == 0):
            yield place - causal, label, row.weights[place] if row.weights else 1.0


def _supervised(row: TrainedRow, *, causal: bool) -> float:
    return sum(weight for _, _, weight in _targets(row, causal=causal))


def _start(model: Any) -> int:
    """The id that a decoder starts with."""
    for config in (model.generation_config, model.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            if (found := getattr(config, name, None)) is not None:
                return found
    raise ValueError("the model has no decoder_start_token_id")
