"""Whether an optimizer's update is large enough to change a weight, given the rounding of its dtype."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llmft.models.fsdp import full_tensor

CHUNK = 2**20  # elements compared at a time, so that a large embedding needs no second copy
# Names of Adam's two moments in the state of torch's Adam and AdamW, and of bitsandbytes' AdamW.
MOMENTS = (("exp_avg", "exp_avg_sq"), ("state1", "state2"))
# An update of two rounding steps changes a weight also where decay and gradient are rounded one after the other.
SAFE_STEPS = 2


def rounding_step(weight: Tensor) -> Tensor:
    """Distance of each element to the next larger number of the weight's dtype, float32 (of 1.0 in float32: 1.2e-7)."""
    limits = torch.finfo(weight.dtype)
    mantissa, exponent = torch.frexp(weight.float())
    step = torch.ldexp(torch.full_like(mantissa, limits.eps), exponent - 1)
    return torch.where(weight == 0, 0.0, step).clamp_min(limits.tiny)


def update_exceeds_rounding(optimizer: Any, weight: torch.nn.Parameter, learning_rate: float) -> bool | None:
    """Whether the last update of a weight was large enough to change at least one of its elements.

    The update is that of Adam and AdamW (Kingma and Ba 2015, Loshchilov and Hutter 2019), computed from the moments in the
    optimizer's state, so that clipping and warm-up are in it. Decay that points the other way is subtracted.

    Args:
        optimizer: The optimizer, after the update.
        weight: The weight, which the update left as it was.
        learning_rate: Of the update.

    Returns:
        None if the update is unknown: another optimizer, moments in 8 bits, or no update yet.
    """
    if not (moments := _moments(optimizer, weight)):
        return None
    group = next(group for group in optimizer.param_groups if any(p is weight for p in group["params"]))
    state = optimizer.state[weight]
    bias = [1 - beta ** float(state["step"]) for beta in group["betas"]]
    tensors = [full_tensor(tensor.detach()).flatten().split(CHUNK) for tensor in (weight, *moments)]
    for part, mean, square in zip(*tensors, strict=True):
        update = learning_rate * (mean.float() / bias[0]).abs() / ((square.float() / bias[1]).sqrt() + group["eps"])
        decay = learning_rate * group["weight_decay"] * part.float().abs()
        if (update - decay >= SAFE_STEPS * rounding_step(part)).any():
            return True
    return False


def _moments(optimizer: Any, weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """First and second moment in a floating-point dtype; RAdam and NAdam have the same names for another formula."""
    state: Mapping[str, Any] = optimizer.state.get(weight, {})
    for first, second in MOMENTS:
        known = first == "state1" or isinstance(optimizer, torch.optim.Adam)
        if known and {first, second, "step"} <= state.keys() and float(state["step"]) > 0:
            found = state[first], state.get("max_exp_avg_sq", state[second])
            return found if all(moment.is_floating_point() for moment in found) else None
    return None
