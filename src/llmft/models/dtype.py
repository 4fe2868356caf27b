"""The dtype that a model computes in, and float32 for as long as an evaluation or an answer asks for it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from llmft.utils.device import autocast_dtype, bfloat16_units, default_device


def dtype_name(model: Any, dtype: str = "auto", precision: str = "32-true") -> str:
    """The dtype that a model computes in: ``float32`` or ``bfloat16``; of a quantized base also its format.

    Under autocast that of the weights, and the precision: ``float32, bf16-mixed``.

    Of a LoRA model it is that of the frozen base, which computes nearly everything; the adapter itself is in float32.

    Args:
        model: A transformers or peft model.
        dtype: As for ``computing_in``.
        precision: Of the autocast; ``32-true`` for none.
    """
    if precision != "32-true":
        return f"{dtype_name(model, dtype)}, {precision}"
    quantized = getattr(model.config, "quantization_config", None)
    if quantized and not quantized.load_in_8bit:
        computes = str(quantized.bnb_4bit_compute_dtype).removeprefix("torch.")
        return f"{computes}, base in {quantized.bnb_4bit_quant_type}"
    sizes: Counter[torch.dtype] = Counter()
    # of an int8 base the embeddings, which are not quantized: the adapter may be larger than all that is not
    for weight in [model.get_input_embeddings().weight] if quantized else model.parameters():
        sizes[weight.dtype] += weight.numel()
    name = str(max(sizes, key=lambda each: sizes[each])).removeprefix("torch.")
    name = dtype if name == "bfloat16" and dtype != "auto" else name
    return f"{name}, base in int8" if quantized else name


def to_float32(model: Any) -> list[Tensor]:
    """Convert weights and buffers in bfloat16 to float32, one after the other and in place; no second copy is made.

    Args:
        model: A transformers or peft model whose weights in bfloat16 are frozen.

    Returns:
        The tensors that were in bfloat16.
    """
    found = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.dtype == torch.bfloat16]
    for tensor in found:
        tensor.data = tensor.data.float()
    return found


def answering_precision(device: torch.device, precision: str, dtype: str = "auto") -> str:
    """The precision of answers and evaluations: that of the training on a CUDA device, ``32-true`` elsewhere.

    A CPU computes without autocast, where its answers have more digits and are those of every other machine.

    Args:
        device: That computes.
        precision: ``trainer.precision`` of the training.
        dtype: ``generation.dtype`` or ``evaluate.dtype``; ``float32`` means float32.
    """
    kind = autocast_dtype(precision) if device.type == "cuda" and dtype == "auto" else None
    emulated = kind == torch.bfloat16 and bfloat16_units(gpu=True) is None  # trained on another GPU
    return precision if kind and not emulated else "32-true"


def untrained_precision(dtype: str) -> str:
    """As ``trainer.precision`` for a model that was not trained here: what a training of it on the default device would use.

    Args:
        dtype: ``model.dtype``; autocast only where it is ``auto``.
    """
    cuda = default_device().type == "cuda"
    return "bf16-mixed" if dtype == "auto" and cuda and bfloat16_units(gpu=True) else "32-true"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The autocast of a precision; nothing for ``32-true``.

    Weights that can be trained are cast once in the outermost block.

    Args:
        device: That computes.
        precision: From ``answering_precision``.
    """
    kind = autocast_dtype(precision)
    return torch.autocast(device.type, kind) if kind else nullcontext()


@contextmanager
def computing_in(model: Any, dtype: str, precision: str = "32-true") -> Iterator[None]:
    """Compute in a dtype inside the block: the weights that were trained, only with more digits.

    A number in bfloat16 is one in float32 too, so the weights are back to the bit afterwards.

    Args:
        model: As for ``to_float32``, on the device that computes.
        dtype: ``float32``; ``auto`` computes as the training did (``answering_precision``).
        precision: ``trainer.precision`` of the training.
    """
    converted = to_float32(model) if dtype == "float32" else []
    try:
        with autocast(model.device, answering_precision(model.device, precision, dtype)):
            yield
    finally:
        for tensor in converted:
            tensor.data = tensor.data.bfloat16()
