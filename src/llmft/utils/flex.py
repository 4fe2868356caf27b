"""Whether torch's flex attention can train: the hardware, Triton and the architecture, each with the reason if it cannot."""

from typing import Any

import torch

from llmft.utils import torch_compile
from llmft.utils.flash import head_size, parts, unfit_gpu, value

# torch compiles for Triton from this CUDA compute capability on (Volta); it tests flex attention from 8.0 on.
VOLTA = (7, 0)
# Triton's smallest matrix product. Above the largest, a block does not fit into the shared memory of most cards.
NARROWEST, WIDEST = 16, 256
DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")


def unavailable() -> str | None:
    """Why flex attention cannot train on this machine; None if it can."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA GPU on this machine, and its flex attention has no backward pass on a CPU"
    return unfit_gpu(VOLTA, "Triton needs 7.0 (Volta) or more") or torch_compile.unavailable("cuda")


def unfit(config: Any) -> str | None:
    """Why an architecture cannot train with flex attention; None if nothing in its config says so.

    Args:
        config: A transformers config, or the content of a ``config.json``.
    """
    for part in parts(config):
        if value(part, "relative_attention_num_buckets") is not None:
            return "its relative position bias is a tensor of tokens times tokens"
        if value(part, "attention_chunk_size") is not None:
            return "it attends in chunks (attention_chunk_size)"
        if value(part, "model_type") == "gpt_oss":
            return "it has attention sinks"
        size = head_size(part)
        if size is not None and not NARROWEST <= size <= WIDEST:
            return f"its attention heads have {size} dimensions, and the kernel takes {NARROWEST} to {WIDEST}"
        for name in DROPOUTS:
            if rate := value(part, name):
                return (
                    f"its attention drops out ({name}={rate:g}), which the kernel cannot; model.dropout=0 turns it off"
                )
    return None
