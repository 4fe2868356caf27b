"""Which GPUs a job takes that runs next to other jobs on this machine."""

import os
from typing import Any

from omegaconf import DictConfig


def gpus_of(cfg: DictConfig, job: Any) -> str | None:
    """``CUDA_VISIBLE_DEVICES`` of a job of joblib: each would take the first GPU. Ray and SLURM hand out their own.

    Args:
        cfg: The config of a command; ``trainer.devices`` is the number of GPUs, 1 in a command without it.
        job: Hydra's config of the job.

    Returns:
        Names as in the variable; None where it stays as it is.
    """
    trainer = cfg.get("trainer") or {}
    if job.runtime.choices.get("hydra/launcher") != "joblib" or trainer.get("accelerator") in ("cpu", "mps"):
        return None
    return turn(int(job.job.num), int(trainer.get("devices", 1)))


def turn(number: int, devices: int) -> str | None:
    """The visible GPUs whose turn it is, by the number of the job; None if they are enough for one job only, or for none.

    Args:
        number: From 0.
        devices: GPUs per job.
    """
    import torch

    count, given = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if count < 2 * devices:
        return None
    names = [name.strip() for name in given.split(",")][:count] if given else [str(index) for index in range(count)]
    first = number % (count // devices) * devices
    return ",".join(names[first : first + devices])
