"""``trainer.deterministic``: what it sets in torch, where it is lifted, and how the process gets its flags back."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from llmft.utils.device import runs_on_gpu

log = logging.getLogger(__name__)
# cuBLAS splits a sum the same way each time only with workspaces of its own; FlashAttention's backward, called by
# transformers, otherwise adds in the order in which blocks finish.
ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}


def resolved(trainer: Any) -> bool | str:
    """``trainer.deterministic`` of a config without ``auto``: exact on a CPU (``warn``), fast on a GPU (false)."""
    if trainer.deterministic != "auto":
        return trainer.deterministic
    return False if runs_on_gpu(trainer) else "warn"


def prepare(cfg: DictConfig) -> None:
    """With ``trainer.deterministic=true``, set what CUDA's libraries read once, before they do.

    The processes of other ranks inherit it.

    Args:
        cfg: As composed: checking it asks the GPU what it can do, which initializes CUDA.
    """
    if OmegaConf.select(cfg, "trainer.deterministic", throw_on_resolution_failure=False) is not True:
        return
    if "CUBLAS_WORKSPACE_CONFIG" not in os.environ and torch.cuda.is_initialized():
        log.warning(
            "trainer.deterministic=true: this process has used CUDA before, so that a setting of cuBLAS may come too late; "
            "start it with CUBLAS_WORKSPACE_CONFIG=:4096:8"
        )
    os.environ.update(ENVIRONMENT)


@contextmanager
def kept_flags() -> Iterator[None]:
    """Restore torch's flags at the end of the block, also after an error."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def lifted(device: torch.device) -> Iterator[None]:
    """Allow any algorithm inside the block, on a device other than the CPU; then restore the flags.

    Answering trains nothing, and needs an operation that CUDA has in no deterministic form: the cumulative sum of floats
    (``top_p``). On a CPU every flag stays, and with them the numbers.
    """
    if device.type == "cpu" or not torch.are_deterministic_algorithms_enabled():
        yield
        return
    with kept_flags():
        torch.use_deterministic_algorithms(False)
        yield
