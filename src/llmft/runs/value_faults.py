"""Faults of single values of a checkpoint: tensors, numbers, counts; each as one line."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

MISSING = object()


class TensorKind(NamedTuple):
    """What a tensor must be; a shape of None is not known."""

    dtype: torch.dtype
    shape: Sequence[int] | None


def tensor_faults(name: str, found: Any, dtype: torch.dtype, shape: Sequence[int] | None) -> Iterator[str]:
    """Faults of a tensor: its kind, shape, dtype, or values that are not finite; ``shape`` None accepts any."""
    if not isinstance(found, Tensor):
        yield f"{name} must be a tensor, is {kind(found)}"
    elif found.layout != torch.strided or found.is_meta:
        yield f"{name} holds no values ({found.layout}, {found.device})"
    elif shape is not None and tuple(found.shape) != tuple(shape):
        yield f"{name} has shape {list(found.shape)}, must have {list(shape)}"
    elif found.dtype != dtype:
        yield f"{name} is {plain(found.dtype)}, must be {plain(dtype)}"
    elif not torch.isfinite(found).all():
        yield f"{name} holds NaN or infinity"


def value_faults(name: str, found: Any, sample: Any) -> Iterator[str]:
    """Whether a value is as a ``TensorKind`` says, or of the kind of a sample, and finite (or not negative) where that is."""
    if found is MISSING or (found is None and sample is not None):
        yield f"{name} is missing"
    elif isinstance(sample, TensorKind):
        yield from tensor_faults(name, found, *sample)
    elif isinstance(sample, Mapping):
        yield from state_faults(name, found, sample)
    elif isinstance(sample, list | tuple):
        if not isinstance(found, list | tuple) or len(found) < len(sample):
            yield f"{name} must hold {len(sample)} values, is {kind(found)}"
            return
        for position, (value, one) in enumerate(zip(found, sample, strict=False)):
            yield from value_faults(f"{name}[{position}]", value, one)
    elif isinstance(sample, bool):
        if not isinstance(found, bool):
            yield f"{name} must be true or false, is {kind(found)}"
    elif isinstance(sample, int | float | Tensor):
        yield from _number_faults(name, found, number(sample))


def _number_faults(name: str, found: Any, sample: float) -> Iterator[str]:
    value = number(found)
    if math.isnan(value) or (math.isfinite(sample) and not min(0, sample) <= value < math.inf):
        yield f"{name} must be a number{' from 0 on' if 0 <= sample < math.inf else ''}, is {kind(found)}"


def state_faults(name: str, found: Any, sample: Mapping[str, Any]) -> Iterator[str]:
    """``value_faults`` for each key of a state."""
    if not isinstance(found, Mapping):
        yield f"{name} is missing" if found is None else f"{name} must be a dict, is {kind(found)}"
        return
    for key, value in sample.items():
        yield from value_faults(f"{name}: {key}", found.get(key, MISSING), value)


def count_faults(name: str, found: Any) -> Iterator[str]:
    """Whether a value is a whole number from 0 on."""
    if found is None:
        yield f"{name} is missing"
    elif not isinstance(found, int) or isinstance(found, bool) or found < 0:
        yield f"{name} must be a whole number from 0 on, is {kind(found)}"


def number(found: Any) -> float:
    """A number, also of a tensor with one element; NaN for all else."""
    if isinstance(found, Tensor):
        return float(found) if found.numel() == 1 and not found.is_complex() and not found.is_meta else math.nan
    return float(found) if isinstance(found, int | float) else math.nan


def at(found: Any, path: Sequence[str]) -> Any:
    """A value in nested dicts; None if there is none."""
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def kind(found: Any) -> str:
    """What a value is, for a message: its type, or the number itself."""
    if found is None:
        return "missing"
    return f"{found:g}" if isinstance(found, int | float) else f"a {type(found).__name__}"


def plain(dtype: torch.dtype) -> str:
    """``float32``."""
    return str(dtype).removeprefix("torch.")
