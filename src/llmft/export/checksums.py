"""Write and parse ``SHA256SUMS``, in the format of ``sha256sum --check``."""

import re
from collections.abc import Iterable
from pathlib import Path

from llmft.data.sources import digest

NAME = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write(folder: Path) -> None:
    """Write the checksums of all files below a folder, sorted by name."""
    lines = [f"{digest(folder / name)}  {name}\n" for name in list_files(folder) if name != NAME]
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def list_files(folder: Path) -> list[str]:
    """Relative POSIX paths of all files below a folder, sorted."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def parse(lines: Iterable[str]) -> dict[str, str]:
    """Parse lines to digests by file name.

    Raises:
        ValueError: A line has another format, or a name occurs twice.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        match = LINE.fullmatch(line)
        if not match or match[2] in found:
            raise ValueError(f"{NAME}:{number}: must be a SHA-256, two spaces and a unique file name")
        found[match[2]] = match[1]
    return found
