"""The processes of a run: which one this is, and that they end together. The first one writes files and talks."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmft.errors import UserError

# A process that hangs in a collective sees no signal; one that met the same error ends by itself well within this.
SECONDS_TO_END = 5.0


def rank(devices: int = 1) -> int:
    """The number of this process among all of the run; known before anything distributed is started.

    Args:
        devices: Processes of a node, where Lightning starts them (torchrun and SLURM number all processes themselves).
    """
    if "RANK" in os.environ:  # torchrun
        return int(os.environ["RANK"])
    if "LOCAL_RANK" in os.environ or "NODE_RANK" in os.environ:  # Lightning's own launcher
        return int(os.environ.get("NODE_RANK", 0)) * devices + int(os.environ.get("LOCAL_RANK", 0))
    return int(os.environ.get("SLURM_PROCID", 0))


def is_first() -> bool:
    """Whether this process writes the run directory and prints."""
    return rank() == 0


def processes_to_start(trainer: Any) -> bool:
    """Whether a training with this ``trainer`` config starts other processes itself; torchrun and SLURM have done so."""
    return trainer.devices * trainer.num_nodes > 1 and not (started_outside() or "LOCAL_RANK" in os.environ)


def started_outside() -> bool:
    """Whether torchrun or SLURM started the processes of this run, each with the whole command line."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", 1)) > 1


def share_cores(trainer: Any) -> str | None:
    """Give each process of a node its share of the cores as threads, where ``OMP_NUM_THREADS`` does not say how many.

    Otherwise each would take all of them: two processes with two threads each on two cores wait for each other. (Workers of a
    loader take one thread each: torch's own doing.)

    Args:
        trainer: The config.

    Returns:
        What was done, for the log; None for a run of one process, which is left as it is.
    """
    import torch

    if trainer.devices * trainer.num_nodes == 1:
        return None
    if given := os.environ.get("OMP_NUM_THREADS"):
        return f"threads: {torch.get_num_threads()} for each process, by OMP_NUM_THREADS={given}"
    # where SLURM was told the cores of a task, no other task has them
    own = os.environ.get("SLURM_CPUS_PER_TASK")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(int(own) if own else max(1, cores // trainer.devices))
    why = f"SLURM_CPUS_PER_TASK={own}" if own else f"{cores} cores for {trainer.devices} processes"
    return f"threads: {torch.get_num_threads()} for each process ({why}; OMP_NUM_THREADS=N decides otherwise)"


def agree(strategy: Any, error: UserError | None) -> None:
    """Make an error of the first process one of all, so that none waits for it for ever.

    Args:
        strategy: Lightning's; all its processes must call this.
        error: What the first process met, if anything.

    Raises:
        UserError: On all processes; the first one says it.
    """
    message = strategy.broadcast(str(error) if error else None)
    if message:
        raise UserError.of_all_ranks(message) from error


@contextmanager
def ending_together(strategy: Any) -> Iterator[None]:
    """If this process fails, end those that Lightning started for it: they would wait for it in a collective."""
    try:
        yield
    except BaseException:
        started = getattr(strategy.launcher, "procs", [])
        processes = list(started)
        started.clear()  # Lightning's watch over them kills this process as soon as one of them ends with an error
        for process in processes:
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
        raise
