"""Random states of a process as tensors and plain values, for checkpoints."""

import random
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch


def rng_states() -> dict[str, Any]:
    """The states of the random number generators of Python, NumPy, torch and CUDA."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    state["numpy"] = (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest)
    if torch.cuda.is_initialized():  # a training on the CPU leaves a GPU alone
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_states(state: dict[str, Any]) -> None:
    """Restore the states that ``rng_states`` returned."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def gathered(trainer: pl.Trainer, value: Any) -> dict[str, Any]:
    """Gather a value of every rank, by rank as text; every rank must call it."""
    if trainer.world_size == 1:
        return {"0": value}
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return {str(rank): found for rank, found in enumerate(values)}
