"""The rank of this process."""

import os
from typing import Any


def rank(devices: int = 1) -> int:
    """The rank of this process among all of the run; known before torch.distributed is initialized.

    Args:
        devices: Processes per node, if Lightning starts them (torchrun and SLURM set the global rank).
    """
    if "RANK" in os.environ:  # torchrun
        return int(os.environ["RANK"])
    if "LOCAL_RANK" in os.environ or "NODE_RANK" in os.environ:  # Lightning's own launcher
        return int(os.environ.get("NODE_RANK", 0)) * devices + int(os.environ.get("LOCAL_RANK", 0))
    return int(os.environ.get("SLURM_PROCID", 0))


def is_first() -> bool:
    """Whether this is rank 0, which writes the run directory and prints."""
    return rank() == 0


def processes_to_start(trainer: Any) -> bool:
    """Whether a training with this ``trainer`` config starts other processes itself, not torchrun or SLURM."""
    return trainer.devices * trainer.num_nodes > 1 and not (started_outside() or "LOCAL_RANK" in os.environ)


def started_outside() -> bool:
    """Whether torchrun or SLURM started the processes of this run, each with the full command line."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", 1)) > 1
