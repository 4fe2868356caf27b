"""Whether FlashAttention can run: its kernel, the hardware and the architecture, each with the reason if it cannot."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch

# Kernels as transformers names them, and the modules of their packages, fastest first.
PACKAGES = {"flash_attention_3": "flash_attn_interface", "flash_attention_2": "flash_attn"}
TORCH = "torch"
# CUDA compute capability of the first card that FlashAttention 2 runs on (Ampere), and the one that version 3 is made for.
AMPERE, HOPPER = (8, 0), 9
WIDEST = 256


def kernel_name() -> str | None:
    """The kernel for examples of different lengths: a package's, else torch's own; None if torch has none."""
    hopper = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == HOPPER
    for name, module in PACKAGES.items():
        if find_spec(module) and (hopper or name != "flash_attention_3"):
            return name
    return TORCH if find_spec("torch.nn.attention.varlen") else None


def unavailable() -> str | None:
    """Why FlashAttention cannot run on this machine; None if it can."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA GPU on this machine"
    if why := unfit_gpu(AMPERE, "it needs 8.0 (Ampere) or more"):
        return why
    if kernel_name() is None:
        return f"torch {torch.__version__} has no kernel for examples of different lengths; upgrade it, or install flash-attn"
    return None


def unfit_gpu(capability: tuple[int, int], needed: str) -> str | None:
    """Why the current GPU cannot run a kernel; None if it can.

    Args:
        capability: The lowest CUDA compute capability that can.
        needed: Says so.
    """
    if torch.version.hip:
        return "it is not tested on ROCm"
    if (found := torch.cuda.get_device_capability()) < capability:
        return f"{torch.cuda.get_device_name()} has compute capability {'.'.join(map(str, found))}, and {needed}"
    return None


def unfit(config: Any) -> str | None:
    """Why an architecture cannot attend with FlashAttention; None if nothing in its config says so.

    Args:
        config: A transformers config, or the content of a ``config.json``.
    """
    for part in parts(config):
        if value(part, "relative_attention_num_buckets") is not None:
            return "its relative position bias is added to the attention scores"
        if value(part, "attn_logit_softcapping") is not None:
            return "its attention scores are capped (attn_logit_softcapping)"
        if value(part, "attention_chunk_size") is not None:
            return "it attends in chunks (attention_chunk_size)"
        if value(part, "model_type") == "gpt_oss":
            return "it has attention sinks"
        size = head_size(part)
        if size is not None and (size % 8 or size > WIDEST):
            return f"its attention heads have {size} dimensions, and the kernel takes multiples of 8 up to {WIDEST}"
    return None


def parts(config: Any) -> Iterator[Any]:
    """A transformers config, or the content of a ``config.json``, and the configs of its language models."""
    yield config
    for name in ("text_config", "encoder", "decoder"):
        if (part := value(config, name)) is not None and value(part, "hidden_size") is not None:
            yield part


def value(config: Any, name: str) -> Any:
    """A key of such a config; None where it has none."""
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def head_size(config: Any) -> int | None:
    """Dimensions of its attention heads, where it says so."""
    width, heads = value(config, "hidden_size"), value(config, "num_attention_heads")
    return value(config, "head_dim") or (width // heads if width and heads else None)
