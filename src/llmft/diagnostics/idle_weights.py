"""Detect trainable parameters that do not train: no gradient, a gradient of exactly 0, or a value that never changes."""

from typing import Any

import torch
from torch import Tensor

from llmft.models.fsdp import full_tensor

# Parameters up to this number of elements are compared with a copy, larger ones by a hash to save memory.
COPIED = 4096


class IdleWeights:
    """Check the first optimizer steps; a parameter that has changed once is not checked again.

    The gradient of LoRA's A matrices is 0 until B is no longer 0, which takes one step with a learning rate above 0 (linear
    warm-up starts at 0). So only steps with a learning rate above 0 count, and one of them is never enough.

    Args:
        steps: Number of steps with a learning rate above 0 within which each parameter must get a gradient and change.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.moving = 0
        self.weights: dict[str, torch.nn.Parameter] = {}
        self.zero: set[str] = set()
        self.still: dict[str, Tensor] = {}

    def fault(self, model: torch.nn.Module, optimizer: Any, learning_rate: float) -> tuple[str, list[str]] | None:
        """An error message and the names of the affected parameters, or None.

        Call once per optimizer step, after the backward pass and before the update.
        """
        if self.moving > self.steps:
            return None
        if not self.weights:
            self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
            self.zero, self.still = set(self.weights), {name: _fingerprint(p) for name, p in self.weights.items()}
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            if missing := [name for name, p in self.weights.items() if id(p) not in held]:
                return f"{len(missing)} trainable weights are not in the optimizer", missing
        if without := [name for name, p in self.weights.items() if p.grad is None]:
            return f"{len(without)} trainable weights have no gradient", without
        self._update()
        self.moving += learning_rate > 0
        return self._verdict() if self.moving > self.steps else None

    def _update(self) -> None:
        """Drop the parameters that had a gradient, and those that changed (a single hash may collide by chance)."""
        if self.zero:
            names = [name for name in self.weights if name in self.zero]
            gradients = [grad for name in names if (grad := self.weights[name].grad) is not None]
            has_gradient = torch.stack([full_tensor(grad).any() for grad in gradients]).tolist()
            self.zero = {name for name, nonzero in zip(names, has_gradient, strict=True) if not nonzero}
        if self.moving:
            self.still = {n: f for n, f in self.still.items() if torch.equal(f, _fingerprint(self.weights[n]))}

    def _verdict(self) -> tuple[str, list[str]] | None:
        # embeddings of new tokens (peft's trainable_tokens) have no gradient until the tokens occur
        zero = [name for name in self.weights if name in self.zero and "trainable_tokens" not in name]
        still = [name for name in self.weights if name in self.still and name not in self.zero]
        self.weights, self.still = {}, {}
        if zero:
            return f"{len(zero)} trainable weights had a gradient of exactly 0 in {self.steps} steps", zero
        return (f"{len(still)} trainable weights did not change in {self.steps} steps", still) if still else None


def _fingerprint(weight: Tensor) -> Tensor:
    """A copy or a hash of a parameter, which changes with its smallest change (a sum or norm could round it away)."""
    now = full_tensor(weight.detach())
    return now.clone() if now.numel() <= COPIED else torch.hash_tensor(now)
