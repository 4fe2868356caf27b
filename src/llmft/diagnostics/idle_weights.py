"""Detect trainable parameters that do not train: no gradient, a gradient of exactly 0, or a value that never changes."""

import logging
from typing import Any

import torch
from torch import Tensor

from llmft.diagnostics.update_size import update_exceeds_rounding
from llmft.models.fsdp import full_tensor

log = logging.getLogger(__name__)

# Parameters up to this number of elements are compared with a copy, larger ones by a hash to save memory.
COPIED = 4096
# A zero-initialized weight below float16's smallest number is still 0 in a forward pass in float16.
STILL_ZERO = 2.0**-24


class IdleWeights:
    """Check optimizer steps until every trainable parameter has had a gradient and has changed.

    The gradient of LoRA's A matrices is 0 until B is no longer 0, which takes one step with a learning rate above 0 (linear
    warm-up starts at 0). So only steps with a learning rate above 0 count, and one of them is never enough. A parameter that
    does not change because its updates are below its rounding step is healthy: a warm-up often begins there. It is checked
    again, at twice the number of steps each time.

    Args:
        steps: Number of steps with a learning rate above 0 within which each parameter must get a gradient and change.
    """

    def __init__(self, steps: int) -> None:
        self.steps = self.next_check = steps
        self.seen = self.moving = 0
        self.largest_rate = 0.0
        self.rates: list[float] = []
        self.weights: dict[str, torch.nn.Parameter] = {}
        self.without: set[str] = set()
        self.zero: set[str] = set()
        self.still: dict[str, Tensor] = {}
        self.below_rounding: list[str] = []

    def fault(self, model: Any, optimizer: Any, learning_rate: float) -> tuple[str, list[str]] | None:
        """An error message and the names of the affected parameters, or None.

        Call once per optimizer step, after the backward pass and before the update.
        """
        if not self.seen and (fault := self._start(model, optimizer)):
            return fault
        if not (self.without or self.zero or self.still):
            return None
        self.seen += 1
        self.without = {name for name in self.without if self.weights[name].grad is None}
        if self.without and self.seen >= (self.steps if _skips_layers(model) else 1):
            names = self._in_order(self.without)
            return f"{len(names)} trainable weights have no gradient", names
        self._drop_nonzero()
        if self.moving and self.next_check == self.steps:
            self._drop_changed()
        self.moving += learning_rate > 0
        fault = self._verdict(optimizer) if self.moving > self.next_check else None
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.largest_rate = max(self.largest_rate, *self.rates)
        return fault

    def report_unchanged(self) -> None:
        """After the last step: name the parameters that the training did not change, and the learning rate as the cause."""
        self._drop_changed()
        if still := [name for name in self.below_rounding if name in self.still]:
            log.warning(
                "%d of %d trainable weights did not change in this training: at a learning rate of at most %.3g, their updates "
                "were below the rounding step of %s; raise optim.lr (first: %s)",
                *(len(still), len(self.weights), self.largest_rate, self._dtype(still), still[0]),
            )

    def _start(self, model: Any, optimizer: Any) -> tuple[str, list[str]] | None:
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.without, self.zero = set(self.weights), set(self.weights)
        self.still = {name: _fingerprint(p) for name, p in self.weights.items()}
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [name for name, p in self.weights.items() if id(p) not in held]
        return (f"{len(missing)} trainable weights are not in the optimizer", missing) if missing else None

    def _drop_nonzero(self) -> None:
        names = [name for name in self._in_order(self.zero) if self.weights[name].grad is not None]
        if names:
            nonzero = torch.stack([full_tensor(self.weights[name].grad).any() for name in names]).tolist()  # pyright: ignore[reportArgumentType]
            self.zero -= {name for name, any_nonzero in zip(names, nonzero, strict=True) if any_nonzero}

    def _drop_changed(self) -> None:
        if self.still:
            equal = torch.stack(
                [_is_unchanged(self.weights[name], before) for name, before in self.still.items()]
            ).tolist()
            self.still = {name: self.still[name] for name, same in zip(self.still, equal, strict=True) if same}

    def _verdict(self, optimizer: Any) -> tuple[str, list[str]] | None:
        self._drop_changed()
        # embeddings of new tokens (peft's trainable_tokens) have no gradient until the tokens occur
        for name in [name for name in self.zero if "trainable_tokens" in name]:
            self.zero.remove(name)
            self.still.pop(name, None)
        if self.zero and not self._behind_zeros():
            zero = self._in_order(self.zero)
            return f"{len(zero)} trainable weights had a gradient of exactly 0 in {self.moving - 1} steps", zero
        enough = {name: self._should_have_changed(optimizer, self.weights[name]) for name in self._held()}
        stuck = [name for name, exceeds in enough.items() if exceeds]
        if hashed := [name for name in stuck if self.still[name].shape != self.weights[name].shape]:
            # a hash may collide, so the next update is compared exactly
            self.still |= {name: full_tensor(self.weights[name].detach()).clone() for name in hashed}
            return None
        if stuck:
            return f"{len(stuck)} trainable weights did not change in {self.moving - 1} steps", stuck
        self._report_below_rounding([name for name, exceeds in enough.items() if exceeds is False])
        self.next_check *= 2
        return None

    def _should_have_changed(self, optimizer: Any, weight: torch.nn.Parameter) -> bool | None:
        group = next(n for n, group in enumerate(optimizer.param_groups) if any(p is weight for p in group["params"]))
        return update_exceeds_rounding(optimizer, weight, self.rates[group])

    def _report_below_rounding(self, names: list[str]) -> None:
        self.below_rounding = names
        if names and self.next_check == self.steps:
            log.info(
                "%d of %d trainable weights have not changed in %d steps: at a learning rate of up to %.3g their updates are "
                "below the rounding step of %s, as is normal early in a warm-up (first: %s)",
                *(len(names), len(self.weights), self.steps, self.largest_rate, self._dtype(names), names[0]),
            )

    def _behind_zeros(self) -> bool:
        """Whether a zero-initialized matrix with a gradient is still 0, so that the gradients of others may be 0 behind it.

        A bias of 0 hides nothing; that of BART's keys stays there, because a softmax does not depend on it.
        """
        return any(
            bool(full_tensor(weight.detach()).abs().max() < STILL_ZERO)
            for name, weight in self.weights.items()
            if weight.ndim > 1 and name not in self.zero
        )

    def _held(self) -> list[str]:
        return [name for name in self._in_order(self.still) if name not in self.zero]

    def _in_order(self, names: Any) -> list[str]:
        return [name for name in self.weights if name in names]

    def _dtype(self, names: list[str]) -> str:
        return str(self.weights[names[0]].dtype).removeprefix("torch.")


def _skips_layers(model: Any) -> bool:
    """Whether a forward pass in train mode skips layers at random (M2M100's ``encoder_layerdrop``)."""
    config = getattr(model, "config", None)
    return any(value for name, value in vars(config).items() if name.endswith("layerdrop")) if config else False


def _fingerprint(weight: Tensor) -> Tensor:
    """A copy or a hash of a parameter, which changes with its smallest change (a sum or norm could round it away)."""
    now = full_tensor(weight.detach())
    return now.clone() if now.numel() <= COPIED else torch.hash_tensor(now)


def _is_unchanged(weight: Tensor, before: Tensor) -> Tensor:
    """Scalar, bool, on the device of the weight: not ``torch.equal``, for each of which the host would wait."""
    now = full_tensor(weight.detach())
    return (before == (now if before.shape == now.shape else torch.hash_tensor(now))).all()
