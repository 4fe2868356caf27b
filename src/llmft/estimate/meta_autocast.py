"""Autocast on the meta device, which torch has for real devices only: the dtypes that a forward pass allocates."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

# Computed in half precision, and in float32, of what the supported architectures call.
HALF = (
    *((torch.nn.functional, name) for name in ("linear", "scaled_dot_product_attention")),
    *((torch, name) for name in ("addmm", "matmul", "bmm", "baddbmm")),
    *((Tensor, name) for name in ("matmul", "__matmul__")),
)
FLOAT32 = tuple((torch.nn.functional, name) for name in ("layer_norm", "softmax"))


@contextmanager
def meta_autocast(dtype: torch.dtype | None, trained: Collection[Tensor], *, on_gpu: bool) -> Iterator["Casts"]:
    """Compute as under ``torch.autocast``, on tensors of the meta device.

    Functions are replaced, because a TorchFunctionMode is not active when checkpointing recomputes a layer.

    Args:
        dtype: The half precision; None for no autocast.
        trained: The trainable weights, whose copies in half precision are kept until the end of the forward pass.
        on_gpu: Whether it runs on a GPU, where norms and softmax are computed in float32.
    """
    casts = Casts(dtype or torch.float32, trained)
    with ExitStack() as stack:
        for names, cast in ((HALF, casts.half), (FLOAT32 if on_gpu else (), _float32)):
            for owner, name in names if dtype else ():
                stack.enter_context(patch.object(owner, name, _cast_first(getattr(owner, name), cast)))
        yield casts


@contextmanager
def quantized_linear(weights: Collection[Tensor], dtype: torch.dtype) -> Iterator[None]:
    """Linear layers of quantized weights, as bitsandbytes computes them: in its compute dtype, results in that of the input.

    Args:
        weights: The quantized weights, on the meta device in the dtype of the matrix product.
        dtype: ``peft.compute_dtype``; autocast casts further.
    """
    known = {id(weight) for weight in weights}
    linear, addmm = torch.nn.functional.linear, torch.addmm

    def quantized(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if id(weight) not in known:
            return linear(input, weight, bias)
        return linear(input.to(dtype), weight, None if bias is None else bias.to(dtype)).to(input.dtype)

    def conv1d(bias: Tensor, input: Tensor, weight: Tensor, **scales: Any) -> Tensor:  # GPT-2
        if id(weight) not in known:
            return addmm(bias, input, weight, **scales)
        return addmm(bias.to(dtype), input.to(dtype), weight).to(input.dtype)

    with patch.object(torch.nn.functional, "linear", quantized), patch.object(torch, "addmm", conv1d):
        yield


class Casts:
    """The copies in half precision that autocast makes.

    Args:
        dtype: The half precision.
        trained: Weights whose copy is made once in a forward pass; others are copied at each use.
    """

    def __init__(self, dtype: torch.dtype, trained: Collection[Tensor]) -> None:
        self.dtype, self.trained = dtype, {id(weight) for weight in trained}
        self.copies: dict[int, Tensor] = {}

    def half(self, value: Any) -> Any:
        """A float32 tensor in half precision; anything else as it is."""
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if id(value) not in self.trained:
            return value.to(self.dtype)
        if id(value) not in self.copies:
            self.copies[id(value)] = value.to(self.dtype)
        return self.copies[id(value)]

    def end_forward(self) -> None:
        """Forget the copies, and keep none from now on: a layer that is recomputed has an autocast of its own."""
        self.trained = set()
        self.copies.clear()


def _float32(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value


def _cast_first(function: Callable[..., Any], cast: Callable[[Any], Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(value, Tensor) and value.is_meta for value in args):
            return function(*args, **kwargs)
        return function(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

    return called
