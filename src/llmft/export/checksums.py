"""``SHA256SUMS``: the digest of every file of a folder, as ``sha256sum --check`` reads it."""

import re
from collections.abc import Iterable
from pathlib import Path

from llmft.data.sources import digest

NAME = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write(folder: Path) -> None:
    """List all files below a folder, by name."""
    lines = [f"{digest(folder / name)}  {name}\n" for name in files_of(folder) if name != NAME]
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def files_of(folder: Path) -> list[str]:
    """The files below a folder, as ``/``-separated paths from it, sorted."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def parsed(lines: Iterable[str]) -> dict[str, str]:
    """Digest by name.

    Raises:
        ValueError: A line is none of such a list, or a name stands there twice.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        match = LINE.fullmatch(line)
        if not match or match[2] in found:
            raise ValueError(f"{NAME}:{number}: must be a SHA-256, two spaces and a name that is not there yet")
        found[match[2]] = match[1]
    return found
