"""Read rows from CSV, TSV and Parquet, numbered from 1 (without the header)."""

import csv
import logging
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from llmft.data.records import shown
from llmft.data.sources.decompress import MAX_LINE, ParsedRow, byte_lines, opened
from llmft.data.sources.json import EmptyFileError
from llmft.utils.errors import UserError

log = logging.getLogger(__name__)

# Bytes that are not UTF-8, escaped as surrogates.
ESCAPED = re.compile("[\udc80-\udcff]")
PARQUET_ROWS = 256
MAX_HEADER = 2**20


def read_csv(given: str, file: Path, delimiter: str | None = None) -> Iterator[ParsedRow]:
    """Yield the rows as text, with the names of the first line; a quoted field may contain line ends.

    Without a delimiter, it is found in the first line: a comma, or else the one of ``;``, tab and ``|`` that it has most of.

    Raises:
        UserError: Quotes are invalid (nothing after them can be read), names are missing or duplicate, or the file is empty.
    """
    csv.field_size_limit(MAX_LINE)
    number = 0
    with opened(file) as stream:
        # a line that is too long becomes a field that csv refuses
        lines = (
            "x" * (MAX_LINE + 1) if raw is None else raw.decode("utf-8", errors="surrogateescape")
            for _, raw in byte_lines(given, stream)
        )
        first = next(lines, "")
        if delimiter is None and (delimiter := delimiter_of(first)) != ",":
            log.info("%s: fields are separated by %s", given, shown(delimiter))
        rows = csv.reader(chain([first] if first else [], lines), delimiter=delimiter, strict=True)
        try:
            names = _names(given, next(rows, None), delimiter)
            for number, fields in enumerate((row for row in rows if row), start=1):
                yield _row(f"{given}:{number}", names, fields)
        except csv.Error as error:
            where, what = f"{given}:{number + 1}", str(error).replace("\t", "\\t")
            raise UserError(
                f"{where}: broken CSV (line {rows.line_num}): {what}; no row behind it can be read"
            ) from None


def delimiter_of(header: str) -> str:
    """What separates the fields of a header: a comma, or else the one of ``;``, tab and ``|`` that gives most fields."""
    line = header[:MAX_HEADER].splitlines()[:1]
    counts = {delimiter: len(next(csv.reader(line, delimiter=delimiter), [])) for delimiter in ",;\t|"}
    return "," if counts[","] > 1 else max(counts, key=lambda delimiter: counts[delimiter])


def _names(given: str, names: list[str] | None, delimiter: str) -> list[str]:
    if not names:
        raise EmptyFileError(given)
    if any(ESCAPED.search(name) for name in names):
        raise UserError(f"{given}:1: the names of the fields are not UTF-8; save the file as UTF-8")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{given}:1: the first line must name the fields, each once, got {shown(twice[0])} twice")
    other = next((d for d in ",;\t|" if d != delimiter and d in names[0]), None) if len(names) == 1 else None
    if other:
        meant = f"is it separated by {shown(other)}, not by {shown(delimiter)}?"
        raise UserError(f"{given}:1: one field named {shown(names[0])}: {meant}")
    return names


def _row(place: str, names: list[str], fields: list[str]) -> ParsedRow:
    if len(fields) != len(names):
        return ParsedRow(place, None, f"has {len(fields)} fields, the first line names {len(names)}")
    bad = next((match for field in fields if (match := ESCAPED.search(field))), None)
    if bad:
        return ParsedRow(place, None, f"not UTF-8 (byte 0x{ord(bad.group()) - 0xDC00:02x}); save the file as UTF-8")
    return ParsedRow(place, dict(zip(names, fields, strict=True)))


def read_tsv(given: str, file: Path) -> Iterator[ParsedRow]:
    """As ``read_csv``, with tabs between the fields."""
    return read_csv(given, file, "\t")


def read_parquet(given: str, file: Path) -> Iterator[ParsedRow]:
    """Yield the rows of a Parquet file, a batch in memory at a time.

    Raises:
        pyarrow.ArrowException: The file is not Parquet, or is damaged.
    """
    import pyarrow.parquet

    number = 0
    with pyarrow.parquet.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=PARQUET_ROWS):
            for number, row in enumerate(batch.to_pylist(), start=number + 1):  # noqa: B020
                yield ParsedRow(f"{given}:{number}", without_merged_nulls(row))
    if not number:
        raise EmptyFileError(given)


def without_merged_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """A row of an Arrow table without the nulls in its objects, such as the arguments of a call.

    Arrow gives all objects of a column the fields of each other, with null where one has no such field. A null of the data
    cannot be told from these and goes too; only JSON files and columns of JSON text keep it.
    """
    return {name: _without_nulls(value) if isinstance(value, list | dict) else value for name, value in row.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value
