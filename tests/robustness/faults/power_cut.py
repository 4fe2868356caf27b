"""What a power cut would lose: the system calls of a process, read from strace, and compared with the rules of a journaling file system.

A disk may keep writes and names in any order that no flush forbids. So each file is flushed before it gets its final name, the folder
of that name is flushed afterwards, what it replaces is removed only then, and nothing is written into a file that has its final name
(but for tables and logs, which are appended to).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

TRACED = "openat,write,pwrite64,writev,ftruncate,sendfile,copy_file_range,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat"  # fmt: skip
STRACE = ("strace", "-f", "-y", "-s", "4096", "-qq", "-e", f"trace={TRACED}", "-e", "signal=none")
# Appended to, or rebuilt from what is flushed.
UNFLUSHED = ("tensorboard", "log.txt", "metrics.csv", "steps.csv", "samples.jsonl", "in_use", "answers.jsonl")
RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
CALL = re.compile(r"(?P<name>\w+)\((?P<given>.*)\)\s+= (?P<result>\S+)(?P<more>.*)")
HANDLE = re.compile(r"^-?\w+<(?P<path>.*?)>$")


class Call(NamedTuple):
    """A system call that succeeded: its name, the paths in its arguments, and all of them as text."""

    name: str
    paths: tuple[str, ...]
    text: str


def calls(lines: Iterable[str], cwd: str) -> Iterator[Call]:
    """The calls of ``strace -f -y``, in the order in which they ended."""
    waiting: dict[str, str] = {}
    for line in lines:
        process, _, text = line.strip().partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            waiting[process] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := RESUMED.match(text):
            text = waiting.pop(process, "") + resumed[1]
        if (found := CALL.match(text)) and not found["result"].startswith("-"):
            yield Call(found["name"], tuple(_paths(found["given"], found["name"], cwd)), found["given"])


def _paths(given: str, name: str, cwd: str) -> Iterator[str]:
    """Paths of handles (``3</a/b>``), and names relative to the folder before them (``AT_FDCWD</a>, "b"``)."""
    folder = cwd
    for part in re.findall(r'"(?:[^"\\]|\\.)*"|[^,]+', given):
        word = part.strip()
        if handle := HANDLE.match(word):
            folder = handle["path"]
            if not (name.endswith("at") or name in ("renameat2", "openat")):
                yield folder
        elif word.startswith('"') and name not in ("write", "pwrite64", "writev"):
            yield str(PurePosixPath(folder, word[1:-1]))


@dataclass
class Disk:
    """The files below some folders, as far as they are flushed; ``faults`` is what a power cut would break.

    Attributes:
        roots: The folders that must survive it.
        cwd: The working directory of the process.
        unflushed: Files that have been written since they were last flushed.
        unnamed: Folders whose names have changed since they were last flushed.
        replaced: Old files and folders, by the folder that must be flushed before they are removed.
        faults: One line each.
        named: Number of files and folders that got their final name.
    """

    roots: tuple[str, ...]
    cwd: str = "/"
    unflushed: set[str] = field(default_factory=set)
    unnamed: set[str] = field(default_factory=set)
    replaced: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    named: int = 0

    def read(self, lines: Iterable[str]) -> list[str]:
        """Follow a trace to its end; returns the faults."""
        for call in calls(lines, self.cwd):
            self._follow(call)
        self.faults += [f"the names in {folder} were not flushed" for folder in sorted(self.unnamed)]
        return self.faults

    def _follow(self, call: Call) -> None:
        paths = [path for path in call.paths if self._is_kept(path)]
        if not paths:
            return
        if call.name == "openat":
            self._opened(paths[0], call.text)
        elif call.name in ("write", "pwrite64", "writev", "ftruncate", "sendfile", "copy_file_range"):
            self.unflushed.add(paths[-1] if call.name == "copy_file_range" else paths[0])
        elif call.name in ("fsync", "fdatasync"):
            self.unflushed.discard(paths[0])
            self.unnamed.discard(paths[0])
        elif call.name.startswith(("rename", "link")):
            self._named(call, *call.paths[:2])
        elif call.name.startswith(("unlink", "rmdir")):
            self._removed(paths[0])
        elif call.name.startswith("mkdir") and not _is_temporary(paths[0]):
            self._needs_name(paths[0])

    def _is_kept(self, path: str) -> bool:
        return any(path == root or path.startswith(f"{root}/") for root in self.roots) and not any(
            part in UNFLUSHED or part.endswith(".lock") for part in path.split("/")
        )

    def _opened(self, path: str, text: str) -> None:
        if "O_TRUNC" in text and not _is_temporary(path):
            self.faults.append(f"{path}: is overwritten in place")

    def _named(self, call: Call, old: str, new: str) -> None:
        for path in [path for path in self.unflushed if path == old or path.startswith(f"{old}/")]:
            if not call.name.startswith("link"):
                self.unflushed.discard(path)
            if _is_temporary(new):
                self.unflushed.add(new + path.removeprefix(old))
            else:
                self.faults.append(f"{path}: got the name {new} before it was flushed")
        if not _is_temporary(new):
            self.named += 1
        if "RENAME_EXCHANGE" in call.text:
            self.replaced[old] = str(PurePosixPath(new).parent)
        self._needs_name(new)

    def _needs_name(self, path: str) -> None:
        if self._is_kept(folder := str(PurePosixPath(path).parent)) and not _is_temporary(path):
            self.unnamed.add(folder)

    def _removed(self, path: str) -> None:
        for old, folder in self.replaced.items():
            if (path == old or path.startswith(f"{old}/")) and folder in self.unnamed:
                self.faults.append(f"{path}: was removed before its successor's name was flushed")
        self.unflushed.discard(path)


def _is_temporary(path: str) -> bool:
    return any(part.endswith(".tmp") or part.startswith(".export-") for part in path.split("/"))
