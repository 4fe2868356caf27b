"""Frozen weights in 4 or 8 bits (bitsandbytes), computed alike in training and evaluation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial, wraps
from typing import Any

from llmft.config.auto_values import PLAIN
from llmft.config.schema.peft import Lora, Peft


@contextmanager
def deferred_compile() -> Iterator[None]:
    """Context for the import of peft: functions decorated with ``torch.compile`` are compiled at their first call.

    peft imports bitsandbytes if it is installed, which decorates four functions with ``torch.compile``, which imports torch's
    compiler: 0.8 s and 40 MiB, for functions that only quantized models on some devices call.
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


def options(peft: Peft | None) -> dict[str, Any]:
    """The arguments of ``from_pretrained`` for ``peft.quantise``; empty for full precision.

    The weights are quantized on the CPU as they are read, and can be moved from there.
    """
    if not isinstance(peft, Lora) or not peft.quantise:
        return {}
    kind = peft.quantise
    import torch
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=kind,
            bnb_4bit_use_double_quant=peft.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, compute_dtype_of(peft)),
        )
    return {"quantization_config": config, "device_map": {"": "cpu"}}


def compute_dtype_of(peft: Lora) -> str:
    """``peft.compute_dtype``; ``auto``, which only a training resolves, is float32."""
    return str(PLAIN["peft.compute_dtype"]) if peft.compute_dtype == "auto" else peft.compute_dtype


def keep_training_kernels(model: Any) -> None:
    """Make evaluation use the kernels of training, and leave the weights as they are; call it right after loading.

    4 bits: on a CPU with AVX512-BF16, bitsandbytes 0.50 repacks a weight at its first forward in eval mode, for good, into
    a form without a backward. After one validation no layer below gets a gradient, and there is no warning.

    8 bits: see ``TrainingLinear8bit``.
    """
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
        elif type(module) is Linear8bitLt:
            module.__class__ = _training_linear_8bit()


def numel(parameter: Any) -> int:
    """Number of weights in a parameter; two 4-bit weights share a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def _training_linear_8bit() -> type:
    """The class is made here, because importing bitsandbytes takes a second."""
    from bitsandbytes.autograd._functions import matmul
    from bitsandbytes.nn.modules import Linear8bitLt

    class TrainingLinear8bit(Linear8bitLt):
        """An int8 layer with the same kernel in training and evaluation, whose scales move with its weights.

        On a CPU, bitsandbytes 0.50 uses another kernel in eval mode, which rounds the activations to int8 too, and treats
        outliers per batch: the validation loss would depend on the batch size.
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

    return TrainingLinear8bit
