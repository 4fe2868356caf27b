"""Helpers for torch modules."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])

# In the names of attributes that hold a rate of noise in train mode (dropout, LayerDrop, a router's jitter).
NOISE = ("drop", "jitter")


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode inside the block; every submodule's own mode is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def dropouts(model: torch.nn.Module) -> dict[str, float]:
    """The modules of a model that are random in train mode, with their rates: ``{"model.h.0.attn.attn_dropout.p": 0.1}``."""
    found = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            named = any(noise in key for noise in NOISE) or (key == "p" and "Dropout" in type(module).__name__)
            if named and isinstance(value, float) and value > 0:
                found[f"{name}.{key}"] = value
    return found


def outside_graphs(function: F) -> F:
    """The function, called from graphs of ``torch.compile`` and in none; the same object each time, or graphs would not fit."""
    return _outside_graphs(function) if "torch._dynamo" in sys.modules else function


@cache
def _outside_graphs(function: Any) -> Any:
    return torch.compiler.disable(function)
