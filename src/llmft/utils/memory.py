"""Peak memory of the process."""

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

# Writing 5 here resets the peak resident set (VmHWM) of a process on Linux.
CLEAR_REFS = Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Reset the peak resident set and the peak GPU memory, so that each job of a sweep in one process has its own.

    Does nothing for the resident set on systems other than Linux.
    """
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system
    with suppress(OSError):
        CLEAR_REFS.write_text("5", encoding="ascii")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a device; None where that cannot be known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) * 2**10
        limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
        if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
            free = min(free, int(text) - int(used.read_text(encoding="ascii")))
    except (OSError, StopIteration, ValueError):
        return None
    return free


def peak_memory_mib() -> dict[str, float]:
    """Peak resident set (``cpu``) and peak allocated GPU memory (``gpu``), in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = {"cpu": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated() / 2**20
    return {name: round(value, 1) for name, value in peak.items()}
