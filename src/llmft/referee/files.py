"""Read one row of a data file by its place, with the standard library (and pyarrow for Parquet)."""

import codecs
import csv
import functools
import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGEST = 2**29  # bytes of a file that is read as a whole
SEVERAL = object()  # stands for the rows of a .json list that begin in one line, which a place cannot tell apart


def read_row(files: Mapping[str, Path], place: str) -> Any:
    """The row at ``<file as given>:<number>``; None if its file is of another kind, or has no such row; or ``SEVERAL``.

    The number is the line where the row begins in a .jsonl file, a .json list and a table, else the row's.
    """
    given, _, number = place.rpartition(":")
    file = files.get(given)
    if file is None or not number.isdigit() or file.stat().st_size > LARGEST:
        return None
    return _rows(file, file.stat().st_mtime_ns).get(int(number))


def forget_rows() -> None:
    """Free the rows of the files that were read."""
    _rows.cache_clear()


@functools.lru_cache(2)
def _rows(file: Path, changed: int) -> dict[int, Any]:
    """All rows of a file by their numbers."""
    del changed
    kind, packed = file.suffix, file.suffix == ".gz"
    if packed:
        kind = Path(file.stem).suffix
    if kind == ".parquet":
        import pyarrow.parquet

        return dict(enumerate(pyarrow.parquet.read_table(file).to_pylist(), start=1))
    if kind not in (".jsonl", ".json", ".csv", ".tsv"):
        return {}
    raw = gzip.decompress(file.read_bytes()) if packed else file.read_bytes()
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = raw.decode("utf-16" if utf16 else "utf-8-sig", errors="replace" if utf16 else "surrogateescape")
    if kind == ".jsonl":
        return {n: _parsed(line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()}
    if kind == ".json":
        return _of_list(text) if text.lstrip().startswith("[") else _of_columns(json.loads(text))
    return _of_table(text)


def _of_table(text: str) -> dict[int, Any]:
    """The rows of a table; none if its header does not show what separates its fields, or it is not UTF-8."""
    header = text.partition("\n")[0]
    delimiters = [character for character in ",;\t|" if character in header] or [","]
    if len(delimiters) > 1 or re.search("[\udc80-\udcff]", text):
        return {}
    rows = csv.reader((f"{line}\n" for line in text.split("\n")), delimiter=delimiters[0])
    found, names = {}, next(rows)
    line = rows.line_num + 1
    for fields in rows:
        found[line] = dict(zip(names, fields, strict=False))
        line = rows.line_num + 1
    return found


def _parsed(line: str) -> Any:
    """The row of a line; None if it is broken, as rows that the training drops may be."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _of_list(text: str) -> dict[int, Any]:
    found, decoder, at = {}, json.JSONDecoder(), text.index("[") + 1
    while True:
        at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n,"))
        if at >= len(text) or text[at] == "]":
            return found
        line = text.count("\n", 0, at) + 1
        row, at = decoder.raw_decode(text, at)
        found[line] = SEVERAL if line in found else row


def _of_columns(columns: dict[str, list[Any]]) -> dict[int, Any]:
    rows = zip(*columns.values(), strict=True)
    return {n: dict(zip(columns, values, strict=True)) for n, values in enumerate(rows, start=1)}
