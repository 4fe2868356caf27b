"""Peak memory of the process."""

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

# Where Linux lets a process forget its largest resident set.
FORGET = Path("/proc/self/clear_refs")


def forget_peak_memory() -> None:
    """Start to measure the largest resident set anew, so that each job of a sweep in one process has its own.

    What the GPU held is measured anew, too. A system without that keeps what was.
    """
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
    with suppress(OSError):
        FORGET.write_text("5", encoding="ascii")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mib() -> dict[str, float]:
    """The largest resident set so far, and what the GPU held, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = {"cpu": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated() / 2**20
    return {name: round(value, 1) for name, value in peak.items()}
