"""Stream the bytes and lines of a file, compressed or not."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

# Formats of files, each also with the suffix of a compression.
KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
WHOLE = (".parquet", ".xlsx")  # compressed by themselves
PACKERS = (".gz", ".zst")
OTHER_NAMES = {".ndjson": ".jsonl", ".xlsm": ".xlsx"}
# Max bytes of a line: a file without line ends would fill the memory otherwise.
MAX_LINE = 64 * 2**20


class ParsedRow(NamedTuple):
    """A parsed row with its place, or the reason why it could not be parsed (``fault``); ``split`` if its file names that."""

    place: str
    row: Any
    fault: str | None = None
    split: str | None = None


def kind(file: Path) -> str | None:
    """The suffix of a file's format (of ``KINDS``), None if it is not supported."""
    endings = [OTHER_NAMES.get(ending.lower(), ending.lower()) for ending in file.suffixes[-2:]]
    packed = bool(endings) and endings[-1] in PACKERS
    ending = endings[-2] if packed and len(endings) == 2 else endings[-1] if endings else ""
    return ending if ending in KINDS and not (packed and ending in WHOLE) else None


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a file as a buffered binary stream of decompressed bytes.

    Raises:
        OSError, EOFError, zlib.error, pyarrow.ArrowException: It cannot be read, or is truncated (raised while reading).
    """
    ending = file.suffix.lower()
    if ending == ".gz":
        with gzip.open(file, "rb") as stream:
            yield stream
    elif ending == ".zst":
        import io

        import pyarrow

        with pyarrow.input_stream(str(file), compression="zstd") as packed:
            yield io.BufferedReader(packed, 2**20)  # pyright: ignore[reportArgumentType]
    else:
        with file.open("rb", buffering=2**20) as stream:
            yield stream


def byte_lines(stream: Any) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines (separated by newline only) with their numbers from 1; None for a line that is too long."""
    number = 0
    while raw := stream.readline(MAX_LINE + 1):
        number += 1
        if number == 1:
            raw = raw.removeprefix(
                b"\xef\xbb\xbf"
            )  # a BOM, as Windows editors write it, is no character of the first row
        if len(raw) <= MAX_LINE:
            yield number, raw
            continue
        while not raw.endswith(b"\n") and (raw := stream.readline(MAX_LINE)):
            pass
        yield number, None
