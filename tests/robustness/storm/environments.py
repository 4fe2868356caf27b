"""Where and how a command line is started: standard streams, folders, identity, clock. Each is set up in the process that becomes the command."""

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.robustness.faults.full_disk import NEW_USER, NOT_ALLOWED, fill, mounted

BIND, REMOUNT, READ_ONLY = 4096, 32, 1
STRANGER = 54321  # a user id without an entry in /etc/passwd, as in a container
ODD = "a b'c\"d\ne=é,{x}$[1]"  # a folder's name
# Where files are read and written: each is a folder in the case's own one.
HOME, CACHE, OUT, TMP, INPUTS = "home", "cache", "out", "tmp", "in"


def closed(*numbers: int) -> Callable[[], object]:
    """Streams that the shell has closed, such as ``>&-``: Python has None for them."""

    def close() -> None:
        for number in numbers:
            os.close(number)
            name = ("stdin", "stdout", "stderr")[number]
            setattr(sys, name, None)
            setattr(sys, f"__{name}__", None)

    return close


def to_full(*numbers: int) -> Callable[[], object]:
    """Streams into a file on a disk without room."""
    return lambda: [_redirect(number, os.open("/dev/full", os.O_WRONLY)) for number in numbers]


def to_nobody(*numbers: int) -> Callable[[], object]:
    """Streams into a pipe whose reader has left, such as ``| head``."""

    def pipe() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        for number in numbers:
            _redirect(number, writer)

    return pipe


def _redirect(number: int, to: int) -> None:
    """As Python would find it at its start."""
    os.dup2(to, number)
    setattr(sys, ("stdin", "stdout", "stderr")[number], open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def read_only(*folders: str) -> Callable[[], object]:
    """Folders on a read-only mount (which root cannot write to either), seen by this process alone."""

    def mount() -> None:
        for folder in folders:
            path = os.fsencode(Path(folder).absolute())
            if not _own_mounts():
                os._exit(NOT_ALLOWED)
            libc = ctypes.CDLL(None)
            if libc.mount(path, path, None, BIND, None) or libc.mount(
                None, path, None, BIND | REMOUNT | READ_ONLY, None
            ):
                os._exit(NOT_ALLOWED)

    return mount


def full(folder: str) -> Callable[[], object]:
    """A folder on a disk without room."""

    def mount() -> None:
        if not mounted(str(Path(folder).absolute())):
            os._exit(NOT_ALLOWED)
        fill(Path(folder))

    return mount


def as_stranger() -> None:
    """Another user, without a name or a home: by a user namespace, whose files stay readable (Python may lie in root's home)."""
    os.environ.pop("HOME", None)
    os.environ.pop("XDG_CACHE_HOME", None)
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None).unshare(NEW_USER):
        os._exit(NOT_ALLOWED)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{STRANGER} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{STRANGER} {group} 1")


def without_home() -> None:
    """No HOME, and no cache named."""
    for name in ("HOME", "XDG_CACHE_HOME", "LLMFT_CACHE"):
        os.environ.pop(name, None)
    as_stranger()


def clock(step: float) -> Callable[[], object]:
    """The clock is set, by so many seconds, at its hundredth reading."""

    def set_clock() -> None:
        real, calls = time.time, 0

        def stepped() -> float:
            nonlocal calls
            calls += 1
            return real() + (step if calls > 100 else 0)

        time.time = stepped

    return set_clock


def file_size() -> None:
    """No file may be larger than 64 KiB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))


def few_files() -> None:
    """Few files may be open."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))


def _own_mounts() -> bool:
    libc = ctypes.CDLL(None)
    return not libc.unshare(0x00020000) and not libc.mount(b"none", b"/", None, 1 << 18 | 1 << 14, None)


def new_process(**variables: str) -> Callable[[], None]:
    """With variables that Python reads at its start."""

    def replace() -> None:
        command = [sys.executable, "-m", "llmft", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **variables})

    return replace


def nameless_process() -> None:
    """Another user without a name and a home, in a process that has imported nothing yet: libraries look for a home at their import."""
    as_stranger()
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        os.environ.pop(name, None)
    new_process()()


def removed_cwd() -> None:
    """The working directory has been removed."""
    folder = Path.cwd() / "gone"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()


def odd_cwd() -> None:
    """The folder's name holds spaces, quotes, a newline, non-ASCII characters and what the grammar of overrides reads."""
    here, odd = Path.cwd(), Path.cwd() / ODD
    odd.mkdir()
    for name in (OUT, INPUTS, CACHE):
        (here / name).rename(odd / name)
    os.environ["LLMFT_CACHE"] = str(odd / CACHE)
    os.chdir(odd)


def linked_cwd() -> None:
    """A symbolic link to the folder."""
    link = Path("link")
    link.symlink_to(".")
    os.chdir(link)
    os.environ["PWD"] = str(Path(os.environ["PWD"]) / "link")


ENVIRONMENTS: dict[str, Callable[[], object]] = {
    "plain": lambda: None,
    "stdin closed": closed(0),
    "stdout closed": closed(1),
    "stderr closed": closed(2),
    "all closed": closed(0, 1, 2),
    "stdout full": to_full(1),
    "stderr full": to_full(2),
    "stdout without reader": to_nobody(1),
    "both without reader": to_nobody(1, 2),
    "read-only home": read_only(HOME),
    "read-only cache": read_only(CACHE),
    "read-only output": read_only(OUT),
    "read-only temporary folder": read_only(TMP),
    "read-only everything": read_only(HOME, CACHE, OUT, TMP, "."),
    "full home": full(HOME),
    "full cache": full(CACHE),
    "full output": full(OUT),
    "full temporary folder": full(TMP),
    "user without name": as_stranger,
    "user without home": without_home,
    "ASCII locale": new_process(LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    "Latin-1 terminal": new_process(PYTHONIOENCODING="latin-1"),
    "nameless process": nameless_process,
    "umask 077": lambda: os.umask(0o077),
    "umask 777": lambda: os.umask(0o777),
    "umask 000": lambda: os.umask(0),
    "cwd removed": removed_cwd,
    "cwd odd": odd_cwd,
    "cwd linked": linked_cwd,
    "cwd root": lambda: os.chdir("/"),
    "clock back": clock(-86_400.0),
    "clock ahead": clock(86_400.0 * 365),
    "file size": file_size,
    "few files": few_files,
}
# The command may do its work as always.
HARMLESS = {"plain", "nameless process", "ASCII locale", "Latin-1 terminal", "stderr closed", "stderr full", "user without name", "umask 077", "umask 000", "cwd odd", "cwd linked", "clock back", "clock ahead",
            "read-only home", "full home"}  # fmt: skip
SILENT = {"stderr closed", "stderr full", "all closed", "both without reader"}  # no message can be seen
