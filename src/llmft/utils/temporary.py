"""Temporary folders that no killed process leaves behind for long."""

import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path

PREFIX = "llmft-"


class TemporaryFolder(tempfile.TemporaryDirectory):
    """A folder that is removed at the end of its process; those that killed processes left are removed with the next one.

    Its lock belongs to the open file, so a second folder of the same process is safe, and worker processes keep the lock.

    Args:
        prefix: Of its name.
        parent: The folder that it is made in; the system's folder for temporary files by default.
    """

    def __init__(self, prefix: str = PREFIX, parent: Path | None = None) -> None:
        super().__init__(prefix=prefix, dir=parent)
        remove_stale(prefix, parent)
        # and at the end: workers of a run that was killed a moment ago may still have held its folder
        weakref.finalize(self, remove_stale, prefix, parent)
        folder = Path(self.name)
        unfinished = folder / "unfinished"
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_EX)
        unfinished.rename(folder / "in_use")  # no other process sees it without its lock


def remove_stale(prefix: str = PREFIX, parent: Path | None = None) -> None:
    """Remove the temporary folders of processes that have ended; arguments as for ``TemporaryFolder``."""
    for other in (parent or Path(tempfile.gettempdir())).glob(f"{prefix}*/in_use"):
        _remove_if_stale(other)


def _remove_if_stale(in_use: Path) -> None:
    try:
        if in_use.lstat().st_uid != os.getuid():
            return
        with in_use.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(in_use.parent, ignore_errors=True)
    except OSError:
        pass  # in use, or removed by another process just now
