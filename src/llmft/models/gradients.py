"""Gradients of an optimizer's parameters: their list, and multiplying all of them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def gradients_of(optimizer: Any) -> list[Tensor]:
    """The gradients of the parameters that have one, in order."""
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def scale(gradients: Iterable[Tensor], factor: float | Tensor) -> None:
    """Multiply all gradients in place; on a GPU in a few launches instead of one for each.

    Args:
        gradients: Whole or sharded (FSDP2).
        factor: A number, or a scalar on the device of the gradients.
    """
    together: list[Tensor] = []
    for gradient in gradients:
        # a list of sharded and whole tensors is refused; on the CPU a list saves nothing, and rounds a factor to bfloat16
        if hasattr(gradient, "full_tensor") or gradient.device.type == "cpu":
            gradient.mul_(factor)
        else:
            together.append(gradient)
    if together:
        torch._foreach_mul_(together, factor)  # pyright: ignore[reportPrivateImportUsage]
