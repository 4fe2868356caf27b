"""Trainable weights that do not learn: no gradient, a gradient of exactly 0 throughout, or a value that never moves."""

from typing import Any

import torch
from torch import Tensor

from llmft.models.fsdp import full_tensor

# Weights up to this size are compared with a copy, larger ones by a hash (a copy would double the memory).
COPIED = 4096


class IdleWeights:
    """Watches the first optimizer steps, then nothing: a weight that has moved once is not looked at again.

    LoRA's A matrices have no gradient until B has left 0, which takes one step with a learning rate above 0 (linear warm-up
    begins with 0); so steps are counted from the first such step, and one of them never decides.

    Args:
        steps: How many steps with a learning rate above 0 a weight has time to get a gradient and to move.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.moving = 0
        self.weights: dict[str, torch.nn.Parameter] = {}
        self.zero: set[str] = set()
        self.still: dict[str, Tensor] = {}

    def fault(self, model: torch.nn.Module, optimizer: Any, learning_rate: float) -> tuple[str, list[str]] | None:
        """What is wrong, and with which weights; called once per step, when gradients are there and before they are used."""
        if self.moving > self.steps:
            return None
        if not self.weights:
            self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
            self.zero, self.still = set(self.weights), {name: _fingerprint(p) for name, p in self.weights.items()}
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            if alone := [name for name, p in self.weights.items() if id(p) not in held]:
                return f"{len(alone)} trainable weights are not given to the optimizer", alone
        if without := [name for name, p in self.weights.items() if p.grad is None]:
            return f"{len(without)} trainable weights have no gradient", without
        self._look()
        self.moving += learning_rate > 0
        return self._verdict() if self.moving > self.steps else None

    def _look(self) -> None:
        """Forget the weights that have had a gradient, and those that have moved (one hash may agree by chance, not all)."""
        if self.zero:
            names = [name for name in self.weights if name in self.zero]
            gradients = [grad for name in names if (grad := self.weights[name].grad) is not None]
            some = torch.stack([full_tensor(grad).any() for grad in gradients]).tolist()
            self.zero = {name for name, any_ in zip(names, some, strict=True) if not any_}
        if self.moving:
            self.still = {n: f for n, f in self.still.items() if torch.equal(f, _fingerprint(self.weights[n]))}

    def _verdict(self) -> tuple[str, list[str]] | None:
        # rows that peft trains of an embedding have no gradient while their tokens do not occur
        zero = [name for name in self.weights if name in self.zero and "trainable_tokens" not in name]
        still = [name for name in self.weights if name in self.still and name not in self.zero]
        self.weights, self.still = {}, {}
        if zero:
            return f"{len(zero)} trainable weights had a gradient of exactly 0 in {self.steps} steps", zero
        return (f"{len(still)} trainable weights did not move in {self.steps} steps", still) if still else None


def _fingerprint(weight: Tensor) -> Tensor:
    """What changes with the smallest change of a weight (a sum or a norm would round it away)."""
    now = full_tensor(weight.detach())
    return now.clone() if now.numel() <= COPIED else torch.hash_tensor(now)
