"""Inputs that are not what they should be: each file of a good one, in each state that a disk, a copy or an editor leaves behind."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

JUNK = bytes(range(256)) * 4


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _link(to: str) -> Callable[[Path], None]:
    def link(file: Path) -> None:
        file.unlink()
        file.symlink_to(to.format(name=file.name))

    return link


def _half(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def _zeros(file: Path) -> None:
    """What some file systems leave after a power cut: the length, and no content."""
    file.write_bytes(bytes(file.stat().st_size))


def _bit(file: Path) -> None:
    whole = bytearray(file.read_bytes()) or bytearray(1)
    whole[len(whole) // 3] ^= 0x40
    file.write_bytes(whole)


STATES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "half": _half,
    "junk": lambda file: file.write_bytes(JUNK),
    "zeros": _zeros,
    "one bit": _bit,
    "a folder": _folder,
    "a dangling link": _link("nothing"),
    "a link to itself": _link("{name}"),
    "null": lambda file: file.write_text("null\n"),
    "a list": lambda file: file.write_text("[1, [2]]\n"),
    "an object": lambda file: file.write_text('{"a": {"b": [null]}}\n'),
    "utf-16": lambda file: file.write_bytes(file.read_bytes().decode("utf-8", "replace").encode("utf-16")),
}
# What a line of the storm reads, to damage only that.
READS = {
    "train": ("rows.jsonl",), "sweep": ("rows.jsonl",), "preview": ("rows.jsonl",), "estimate": ("rows.jsonl",),
    "resume": ("cut", "rows.jsonl"), "answer": ("run",), "answer file": ("questions.jsonl", "run"), "chat": ("run",), "evaluate": ("run", "rows.jsonl"),
    "evaluate file": ("run/predictions.jsonl",), "report": ("run",), "leaderboard": ("run", "cut"), "replay": ("halted",), "export": ("run",), "restore": ("run.zip",),
}  # fmt: skip
VALUES = ("", "null", "[]", "{}", "-1", "0", "1e999", "nan", "true", "'a\nb'", "é", "\udcff", "'\"'", "${seed}", "${nothing}", "???", "/", "~nobody/x", "a/../../b", "x" * 300, "[1,2]", "{a:1}",
          "999999999999999999999", "in/rows.jsonl", "in", "\t")  # fmt: skip


def files_of(inputs: Path, line: str) -> list[Path]:
    """The files that a line reads, relative to ``inputs``."""
    found = []
    for name in READS.get(line, ()):
        place = inputs / name
        found += [file for file in place.rglob("*") if file.is_file()] if place.is_dir() else [place]
    return sorted(file.relative_to(inputs) for file in found)


def damage(file: Path, state: str) -> None:
    """Bring a file into a state."""
    if file.is_dir():
        shutil.rmtree(file)
    STATES[state](file)


def override(keys: list[str], chance: random.Random) -> str:
    """Any key with any value."""
    return f"{chance.choice(('', '', '', '+', '++', '~'))}{chance.choice(keys)}={chance.choice(VALUES)}"
