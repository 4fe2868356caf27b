"""A disk of its own for a run, small and really full when it is to be: a tmpfs that only this process sees."""

import ctypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.robustness.soak.strikes import wrap

NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
MEBIBYTES = 32
NOT_ALLOWED = 77  # exit code where the system does not let us mount anything


def mounted(folder: str, flags: int = 0) -> bool:
    """Mount a tmpfs there, in a mount namespace of this process; False where the system does not let us."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(NEW_MOUNTS | (NEW_USER if user else 0)):
        return False
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    private = 1 << 18 | 1 << 14  # recursively: nothing of it is seen outside
    if libc.mount(b"none", b"/", None, private, None):
        return False
    return not libc.mount(b"tmpfs", folder.encode(), b"tmpfs", flags, f"size={MEBIBYTES}m".encode())


def read_only(folder: str) -> None:
    """Mount one that nothing can be written to."""
    if not mounted(folder, flags=1):
        os._exit(NOT_ALLOWED)


def fill(folder: Path) -> None:
    """Leave no byte."""
    with (folder / "ballast").open("wb", buffering=0) as out:
        for block in (2**20, 4096, 1):
            try:
                while out.write(b"\0" * block):
                    pass
            except OSError:
                continue


def run_on_a_disk_that_fills_up(folder: str, stage: str, number: int) -> None:
    """Fill the disk at a call of a stage; when the run has ended, make room, copy what is there outside, and resume."""
    from llmft import __main__

    disk = Path(folder)
    if not mounted(folder):
        os._exit(NOT_ALLOWED)
    calls, real = 0, __main__.run

    def around(call: Callable[[], Any]) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            fill(disk)
        return call()

    def run(arguments: Any) -> int:
        code = real(arguments)
        (disk / "ballast").unlink()
        if not (disk / "run").exists():  # an empty run directory is removed
            (disk.parent / "after").mkdir()
            return code
        shutil.copytree(disk / "run", disk.parent / "after")
        nonlocal calls
        calls = number  # it stays empty now
        done = real(["resume=disk/run", "allow_writes=[disk/cache]"])
        shutil.copytree(disk / "run", disk.parent / "resumed")
        (disk.parent / "code").write_text(str(done))
        return code

    wrap(stage, around)
    __main__.run = run
