"""AdamW, clipping and schedules, each as its formula."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class AdamW:
    """Adam with decoupled weight decay on every parameter (Loshchilov and Hutter 2019, algorithm 2), in float64."""

    betas: tuple[float, float]
    eps: float
    weight_decay: float
    steps: dict[str, int] = field(default_factory=dict)
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def updated(self, name: str, weight: Tensor, gradient: Tensor, lr: float) -> Tensor:
        """The weight after a step, float64."""
        weight, gradient = weight.double(), gradient.double()
        beta1, beta2 = self.betas
        t = self.steps[name] = self.steps.get(name, 0) + 1
        first, second = self.moments.get(name) or (torch.zeros_like(weight), torch.zeros_like(weight))
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        self.moments[name] = first, second
        unbiased = (second / (1 - beta2**t)).sqrt() + self.eps
        return weight - lr * self.weight_decay * weight - lr * (first / (1 - beta1**t)) / unbiased


def norm_of(gradients: Mapping[str, Tensor]) -> float:
    """The L2 norm over all gradients."""
    return math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients.values()))


def clip_factor(norm: float, max_norm: float | None) -> float:
    """What the gradients are multiplied by, so that their norm is at most ``max_norm`` (torch adds 1e-6 to the norm)."""
    return 1.0 if max_norm is None or norm <= max_norm else min(1.0, max_norm / (norm + 1e-6))


@dataclass
class Schedule:
    """The learning rate of each optimizer step.

    Attributes:
        name: ``linear``, ``cosine``, ``constant_with_warmup`` or ``plateau``.
        peak: The learning rate after the warm-up.
        warmup: Optimizer steps of linear warm-up, from 0.
        total: Optimizer steps of the training.
        factor: Of a plateau: what the rate is multiplied by.
        patience: Of a plateau: optimizer steps without a better loss.
    """

    name: str
    peak: float
    warmup: int = 0
    total: int = 0
    factor: float = 1.0
    patience: int = 0
    best: float = math.inf
    waited: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        if self.name == "plateau":
            return self.peak
        if step < self.warmup:
            return self.peak * step / self.warmup
        share = (step - self.warmup) / max(1, self.total - self.warmup)
        if self.name == "linear":
            return self.peak * max(0.0, 1 - share)
        if self.name == "cosine":
            return self.peak * max(0.0, 0.5 * (1 + math.cos(math.pi * share)))
        return self.peak

    def seen(self, loss: float) -> None:
        """A plateau's rate falls when the loss has not become better for more than ``patience`` steps."""
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(loss, self.best)
        if self.name == "plateau" and self.waited > self.patience:
            self.peak, self.waited = self.peak * self.factor, 0


def total_steps(batches: int | None, accumulate: int, max_epochs: int, max_steps: int) -> int:
    """Optimizer steps of a training; the last window of an epoch may be short.

    Args:
        batches: Micro-batches of an epoch; None for a stream.
        accumulate: Micro-batches of an optimizer step.
        max_epochs: -1 for no limit.
        max_steps: -1 for no limit.
    """
    limits = [max_steps] if max_steps > 0 else []
    if batches is not None and max_epochs > 0:
        limits.append(max_epochs * math.ceil(batches / accumulate))
    return min(limits)
