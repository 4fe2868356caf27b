"""A lock on a run directory, held by one process at a time; the system releases it when that process ends, however it ends."""

import errno
import fcntl
import logging
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from llmft.utils.errors import UserError

log = logging.getLogger(__name__)

NAME = "in_use"
HELD = (errno.EACCES, errno.EAGAIN)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of some network file systems
_ours: dict[str, int] = {}  # by which process: POSIX locks never conflict within one process


class DirectoryLock:
    """Held from the constructor to ``release`` or the end of the process.

    The lock belongs to the process (not to the open file), so workers that outlive a killed process do not hold it.

    Args:
        folder: The run directory; must exist.

    Raises:
        UserError: Another process holds it, or the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.key = folder / NAME, str(folder.resolve())
        if _ours.get(self.key) == os.getpid():
            raise UserError(f"output_dir={folder}: a training of this process writes there; choose another output_dir")
        try:
            self.handle = self._locked(folder)
        except OSError as error:
            raise UserError(f"output_dir={folder}: cannot be written to ({error.strerror})") from None
        _ours[self.key] = os.getpid()

    def release(self) -> None:
        """Release the lock."""
        if _ours.get(self.key) == os.getpid():
            del _ours[self.key]
            with suppress(OSError):
                self.file.unlink()
            os.close(self.handle)

    def _locked(self, folder: Path) -> int:
        while True:
            handle = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in HELD:
                    who = os.pread(handle, 200, 0).decode(errors="replace").strip()
                    os.close(handle)
                    message = f"output_dir={folder}: another process is writing there ({who or 'it has just begun'})"
                    raise UserError(f"{message}; wait for its end, or choose another output_dir") from None
                if error.errno not in NO_LOCKS:
                    raise
                log.warning(
                    "%s: this file system has no locks, so a second run in this folder would not be noticed", folder
                )
            if _is_current(self.file, handle):
                who = (
                    f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"
                )
                os.ftruncate(handle, 0)
                os.pwrite(handle, who.encode(), 0)
                return handle
            os.close(handle)  # its owner has removed it in the meantime


def is_claimed(folder: Path) -> bool:
    """Whether another process holds the lock of a run directory."""
    if _ours.get(str(folder.resolve())) == os.getpid():
        return False  # closing the file here would release our own lock
    try:
        handle = os.open(folder / NAME, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in HELD
    finally:
        os.close(handle)
    return False


def _is_current(file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
