"""Frozen weights in 4 or 8 bits (bitsandbytes), that compute the same and pass gradients on whatever ran before."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial, wraps
from typing import Any


@contextmanager
def compiled_later() -> Iterator[None]:
    """Around an import of peft: what it decorates with ``torch.compile`` is compiled when it is first called.

    peft imports bitsandbytes where it is installed, and that has ``torch.compile`` wrap four functions, which imports torch's
    compiler: 0.8 s and 40 MiB, for functions that only quantised models on some devices call.
    """
    import torch

    compile_now = torch.compile

    def compile_later(function: Callable[..., Any] | None = None, **options: Any) -> Any:
        if function is None:
            return partial(compile_later, **options)
        compiled = cache(partial(compile_now, function, **options))
        return wraps(function)(lambda *args, **kwargs: compiled()(*args, **kwargs))

    torch.compile = compile_later  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.compile = compile_now


def loading(peft: Any) -> dict[str, Any]:
    """What ``from_pretrained`` must be told so that the base is held as ``peft.quantise`` says; nothing where it says nothing.

    The weights are quantised on the CPU as they are read, and can be moved from there.
    """
    kind = peft and peft.get("quantise")
    if not kind:
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=kind,
            bnb_4bit_use_double_quant=peft.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, peft.compute_dtype),
        )
    return {"quantization_config": config, "device_map": {"": "cpu"}}


def steady(model: Any) -> None:
    """Keep evaluation from changing what training computes; call it right after loading.

    4 bits: on a CPU with AVX512-BF16, bitsandbytes 0.50 repacks a weight at its first forward in eval mode, for good, into
    a form that has no backward. After one validation nothing below such a layer gets a gradient, and nothing says so.

    8 bits: see ``Steady8bit``.
    """
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
        elif type(module) is Linear8bitLt:
            module.__class__ = _steady_8bit()


def numel(parameter: Any) -> int:
    """How many weights a parameter holds; two 4-bit ones share a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def _steady_8bit() -> type:
    """A class made late, because importing bitsandbytes takes a second."""
    from bitsandbytes.autograd._functions import matmul
    from bitsandbytes.nn.modules import Linear8bitLt

    class Steady8bit(Linear8bitLt):
        """An int8 layer that computes alike in training and evaluation, and whose scales move with its weights.

        On a CPU, bitsandbytes 0.50 takes another kernel in eval mode, which rounds the activations to int8 too, and treats
        outliers by batch: the validation loss would depend on the batch size.
        """

        def forward(self, x: Any) -> Any:
            """Inputs [..., in_features] to outputs [..., out_features]."""
            weight: Any = self.weight
            state: Any = self.state
            if weight.CB is not None:
                self.init_8bit_state()
            state.CB, state.SCB = weight.data, state.SCB.to(x.device)
            state.is_training = True
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return matmul(x, weight, bias=bias, state=state)

    return Steady8bit
