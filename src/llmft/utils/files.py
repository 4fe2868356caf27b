"""Atomic writes: after an error, a kill or a power cut, a file or folder is either the old or the new one, complete.

The content is written under a temporary name (``NAME.tmp``) in the same folder, flushed to the disk with fsync, and renamed; then
the parent folder is flushed too, so that the rename survives a power cut.

rename(2) replaces a file, but no folder that holds something. A folder is therefore swapped with its successor in one system
call (``renameat2(RENAME_EXCHANGE)`` on Linux, ``renamex_np(RENAME_SWAP)`` on macOS). File systems without that call (NFS, some
FUSE) take two renames: the old folder is set aside as ``NAME.old.tmp``, and ``restore_folder`` brings it back if the process was
killed between them. ``remove_unfinished`` does the same for all names in a folder and removes what is left of killed processes.
"""

import ctypes
import errno
import glob
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from llmft.utils.errors import UserError, as_os_error
from llmft.utils.paths import user_path
from llmft.utils.text import unresolved

LEVELS = 3  # of outputs/NAME/TIME, which a run creates
SUFFIX, SET_ASIDE = ".tmp", ".old.tmp"
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)  # of file systems that cannot flush a folder
# system call that exchanges two names, its arguments around them, by platform
EXCHANGE = {"linux": ("renameat2", (-100,), (2,)), "darwin": ("renamex_np", (), (2,))}


@contextmanager
def atomic_open(
    file: Path, mode: str = "w", *, newline: str | None = None, errors: str | None = None, shared: bool = False
) -> Iterator[IO[Any]]:
    """Open a file for writing; it replaces the old one when the block succeeds. After an error the old one is untouched.

    Args:
        file: The final name.
        mode: ``w`` (UTF-8) or ``wb``.
        newline: As for ``open``.
        errors: As for ``open``.
        shared: Other processes may write the same file at the same time.

    Raises:
        OSError: Disk full, no permission, ...; names the file.
    """
    unfinished = _temporary(file, shared=shared)
    encoding = None if "b" in mode else "utf-8"
    try:
        with unfinished.open(mode, encoding=encoding, newline=newline, errors=errors) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(file)
        sync_folder(file.parent)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(file)
        _name_final(error, unfinished, file)
        with suppress(OSError):  # a folder that cannot be written to; the first error says so
            unfinished.unlink(missing_ok=True)
        raise


def atomic_write(file: Path, text: str, errors: str | None = None) -> None:
    """Replace the content of a file; values from the environment are interpolations in it (``unresolved``).

    Raises:
        OSError: As for ``atomic_open``.
    """
    with atomic_open(file, errors=errors) as out:
        out.write(unresolved(text))


def atomic_link(file: Path, name: Path) -> None:
    """Give a complete file a second name (a hard link, or a copy where the file system has none), replacing the old file.

    Raises:
        OSError: As for ``atomic_open``.
    """
    if name.exists() and name.samefile(file):
        return  # rename(2) would do nothing and leave the temporary name
    unfinished = _temporary(name)
    unfinished.unlink(missing_ok=True)
    try:
        os.link(file, unfinished)
    except OSError:
        with file.open("rb") as source, atomic_open(name, "wb") as out:
            shutil.copyfileobj(source, out, 2**20)
        return
    try:
        unfinished.replace(name)
        sync_folder(name.parent)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(folder: Path, *, new: bool = False, durable: bool = True) -> Iterator[Path]:
    """A folder to write into; it replaces the old one when the block succeeds. After an error the old one is untouched.

    Args:
        folder: The final name.
        new: There must be no folder of this name when the block ends, or an empty one. Other processes may make the same one at
            the same time. Without it the caller holds a lock.
        durable: Flush everything to the disk first; off for what need not survive a power cut.

    Raises:
        OSError: Disk full, no permission, the folder is there with ``new``, ...; names the final path.
    """
    unfinished = _temporary(folder, shared=new)
    restore_folder(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if durable:
            sync_tree(unfinished)
        if new or not folder.exists():
            unfinished.rename(folder)
        else:
            _replace_folder(unfinished, folder)
        if durable:
            sync_folder(folder.parent)
    except BaseException as error:
        _name_final(error, unfinished, folder)
        if isinstance(error, OSError) or (of_library := as_os_error(error)) is None:
            raise
        of_library.filename = str(folder)
        raise of_library from error
    finally:  # the unfinished folder, or the one that was replaced
        shutil.rmtree(unfinished, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Bring back the folder that a killed process had set aside in order to replace it."""
    aside = folder.with_name(f"{folder.name}{SET_ASIDE}")
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True) if folder.exists() else aside.rename(folder)


def remove_unfinished(parent: Path) -> None:
    """Restore or remove what killed processes left in a folder that this process has a lock on."""
    for aside in parent.glob(f"*{SET_ASIDE}"):
        restore_folder(aside.with_name(aside.name.removesuffix(SET_ASIDE)))
    for left in parent.glob(f"*{SUFFIX}"):
        _remove(left)


def new_folder(key: str, text: str) -> Path:
    """The folder of the option ``key=text``, which must not be there yet (or be empty).

    Raises:
        UserError: It holds something, is a file, or its parent folder is missing.
    """
    folder = user_path(text).absolute()
    if not folder.parent.is_dir():
        raise UserError(f"{key}={text}: there is no folder {folder.parent}")
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise UserError(f"{key}={text}: exists and is not a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{key}={text}: is not empty; choose another folder")
    return folder


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush all files of a folder, and the names in it, to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with Path(parent, name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def durable_folder(folder: Path) -> None:
    """Create a folder and its parents; its name survives a power cut, and with it all that is written into it.

    Raises:
        OSError: It cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for parent in folder.absolute().parents[:LEVELS]:
        with suppress(OSError):  # one that is not ours to read was there before
            sync_folder(parent)


def complete_lines(file: Path) -> list[str]:
    """The lines of a file that is appended to, without an incomplete last one (of a full disk or a power cut)."""
    return file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if file.exists() else []


def _temporary(path: Path, *, shared: bool = False) -> Path:
    """The name to write under; of a path that several processes may write, one for each, and none of a process that has ended."""
    if not shared:
        return path.with_name(f"{path.name}{SUFFIX}")
    prefix = f".{path.name}.{socket.gethostname()}-"
    for other in path.parent.glob(f"{glob.escape(prefix)}*{SUFFIX}"):
        process = other.name.removeprefix(prefix).removesuffix(SUFFIX)
        if process.isdigit() and not _is_running(int(process)):
            _remove(other)
    return path.with_name(f"{prefix}{os.getpid()}{SUFFIX}")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return process != os.getpid()  # what an earlier process of the same number has left


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _name_final(error: BaseException, unfinished: Path, final: Path) -> None:
    """Let an error name the final path in place of the temporary one."""
    if isinstance(error, OSError) and error.filename:
        error.filename = str(error.filename).replace(str(unfinished), str(final))
        if error.filename2:  # of a rename; None in its place would be printed
            del error.filename2


def _replace_folder(unfinished: Path, folder: Path) -> None:
    if _exchange(unfinished, folder):
        return
    aside = folder.with_name(f"{folder.name}{SET_ASIDE}")
    folder.rename(aside)
    try:
        unfinished.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one system call; False where the system or the file system has none."""
    name, at, flags = EXCHANGE.get(sys.platform, ("", (), ()))
    call = getattr(ctypes.CDLL(None), name, None) if name else None
    return call is not None and call(*at, os.fsencode(one), *at, os.fsencode(other), *flags) == 0


def remove_empty(folder: Path) -> None:
    """Remove a folder if it is empty, and then those of its parents that are, up to the working directory."""
    here = Path.cwd()
    for place in (folder, *folder.absolute().parents):
        if place in (here, *here.parents):
            return
        try:
            place.rmdir()
        except OSError:  # holds something, is not there, or is not ours
            return
