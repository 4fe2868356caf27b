"""Trainable weights that do not learn: no gradient, a gradient of exactly 0 throughout, or a value that never moves."""

from typing import Any

import torch


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
        self.waiting: dict[str, torch.nn.Parameter] | None = None
        self.digests: dict[str, int] = {}

    def fault(self, model: torch.nn.Module, optimizer: Any, learning_rate: float) -> tuple[str, list[str]] | None:
        """What is wrong, and with which weights; called once per step, when gradients are there and before they are used."""
        if self.moving > self.steps:
            return None
        if self.waiting is None:
            self.waiting = {name: p for name, p in model.named_parameters() if p.requires_grad}
            self.digests = _digests(self.waiting)
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            if alone := [name for name, p in self.waiting.items() if id(p) not in held]:
                return f"{len(alone)} trainable weights are not given to the optimizer", alone
        if without := [name for name, p in self.waiting.items() if p.grad is None]:
            return f"{len(without)} trainable weights have no gradient", without
        if self.waiting:
            some = torch.stack([p.grad.any() for p in self.waiting.values() if p.grad is not None]).tolist()
            self.waiting = {name: p for (name, p), any_ in zip(self.waiting.items(), some, strict=True) if not any_}
        self.moving += learning_rate > 0
        return self._verdict(model) if self.moving > self.steps else None

    def _verdict(self, model: torch.nn.Module) -> tuple[str, list[str]] | None:
        # rows that peft trains of an embedding have no gradient while their tokens do not occur
        idle = [name for name in self.waiting or {} if "trainable_tokens" not in name]
        if idle:
            return f"{len(idle)} trainable weights had a gradient of exactly 0 in {self.steps} steps", idle
        after = _digests(
            {n: p for n, p in model.named_parameters() if n in self.digests and n not in (self.waiting or {})}
        )
        still = [name for name, digest in after.items() if digest == self.digests[name]]
        return (f"{len(still)} trainable weights did not move in {self.steps} steps", still) if still else None


def _digests(weights: dict[str, torch.nn.Parameter]) -> dict[str, int]:
    """A number for the bits of each weight (a copy would double the memory, a sum or norm hides small updates)."""
    if not weights:
        return {}
    values = torch.stack([torch.hash_tensor(p.detach()) for p in weights.values()])
    return dict(zip(weights, values.view(torch.int64).tolist(), strict=True))
