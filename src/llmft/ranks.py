"""Which of the processes of a run this is; the first one writes files and talks."""

import os

# torchrun, Lightning's own launcher, SLURM
VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def rank() -> int:
    """The number of this process, 0 where there is one alone; known before anything distributed is started."""
    return next((int(os.environ[name]) for name in VARIABLES if name in os.environ), 0)


def is_first() -> bool:
    """Whether this process writes the run directory and prints."""
    return rank() == 0
