"""A text -> a file that is whole or not there: written under another name, flushed to the disk, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def atomic_open(file: Path, newline: str | None = None, errors: str | None = None) -> Iterator[IO[str]]:
    """A file to write to; it takes its name when the block ends well, and leaves nothing behind if not.

    Args:
        file: Its name; what was there stays until then.
        newline: As of ``open``.
        errors: As of ``open``.

    Raises:
        OSError: There is no room, or no permission; names the file.
    """
    unfinished = file.with_name(f"{file.name}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8", newline=newline, errors=errors) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(file)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = str(file)  # write(2) knows none, and the other name is nobody's business
        with suppress(OSError):  # of a folder that nothing can be written to; the first error says so
            unfinished.unlink(missing_ok=True)
        raise


def write(file: Path, text: str, errors: str | None = None) -> None:
    """All of a text.

    Raises:
        OSError: As ``whole``.
    """
    with atomic_open(file, errors=errors) as out:
        out.write(text)


def lines_of(file: Path) -> list[str]:
    """The lines of a file that grows line by line, without the torn one that a full disk or a power cut leaves at its end."""
    return file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if file.exists() else []
