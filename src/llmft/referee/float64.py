"""A model in float64, with every computation in float64: transformers' modules cast to float32 in places."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

LOWER = (torch.float32, torch.float16, torch.bfloat16)
CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)
# Trainable parameters whose updates are compared one by one, and what that takes for each: its value before the step in
# float32, and two moments in float64.
UPDATED, UPDATED_BYTES = 2**24, 20


class KeepFloat64(TorchFunctionMode):
    """Every cast to a lower precision (in norms, softmax, rotary positions) is one to float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace the dtype that a call names."""
        del types
        named = {name: _raised(value) for name, value in (kwargs or {}).items()}
        return (torch.Tensor.double if func in CASTS else func)(*map(_raised, args), **named)


def _raised(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in LOWER else value


@contextmanager
def in_float64(device: str) -> Iterator[None]:
    """Compute everything in float64, gradients included."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.enable_grad(), torch.autocast(device, enabled=False), KeepFloat64():
            yield
    finally:
        torch.set_default_dtype(before)


def float64_copy(model: Any, *, lora_scale: float | None) -> Any:
    """A copy of a transformers or peft model in float64 and train mode, with the plain forward pass of its own classes.

    Rounded weights (bfloat16) are cast up as they are. Attention is eager, as the formula is written.

    Args:
        model: The model, before its first step.
        lora_scale: What the output of LoRA matrices is multiplied by, from the config; None without LoRA.
    """
    twin = copy.deepcopy(model).double().train()
    for module in twin.modules():
        if isinstance(module, nn.Linear) and type(module).__module__.startswith("llmft."):
            module.__class__ = nn.Linear  # a layer of llmft that saves memory: the same product without it
        if lora_scale is not None and isinstance(getattr(module, "scaling", None), dict):
            module.scaling = dict.fromkeys(module.scaling, lora_scale)  # pyright: ignore[reportArgumentType, reportCallIssue]
    base = twin.get_base_model() if hasattr(twin, "get_base_model") else twin
    base.activation_checkpointing_disable()
    base.set_attn_implementation("eager")
    if base._can_set_experts_implementation():  # grouped matrix products have no float64
        base.set_experts_implementation("eager")
    return twin


def lora_scale(alpha: float, r: int, *, rslora: bool) -> float:
    """Alpha over the rank (Hu et al. 2021), or over its square root (rsLoRA, Kalajdzievski 2023)."""
    return alpha / (math.sqrt(r) if rslora else r)


def needed_bytes(model: Any) -> int:
    """Memory of a float64 copy: its weights, and for the trainable ones gradients and two moments."""
    parameters = list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return 8 * sum(p.numel() for p in parameters) + 24 * trained + UPDATED_BYTES * min(trained, UPDATED)
