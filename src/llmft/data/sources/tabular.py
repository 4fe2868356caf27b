"""Read rows from CSV and TSV, each with the line of the file where it begins; and from Parquet, numbered from 1."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from llmft.config.text_format import delimiter_character
from llmft.data.records import shown
from llmft.data.sources.decompress import MAX_LINE, ParsedRow, byte_lines
from llmft.data.sources.encoding import Encoding, encoding_of_table, opened_text
from llmft.data.sources.file_format import FileFormat
from llmft.data.sources.json import EmptyFileError
from llmft.utils.errors import UserError

DELIMITERS = ",;\t|"
# Lines and characters that decide what separates the fields, and which 8-bit encoding a table has.
SAMPLE_LINES, SAMPLE = 100, 2**16
PARQUET_ROWS = 256


def read_csv(given: str, file: Path, layout: FileFormat, usual: str = ",") -> Iterator[ParsedRow]:
    """Yield the rows as text, with the names of the first line; a quoted field may contain line ends.

    Without ``data.delimiter``, it is the one with which most of the first rows have as many fields as the header. Without
    ``data.encoding``, a table that is not UTF-8 is Western European, if it reads well so.

    Raises:
        UserError: Quotes are invalid (nothing after them can be read), names are missing or duplicate, or the file is empty.
    """
    csv.field_size_limit(MAX_LINE)
    line = 1  # where the row begins
    with opened_text(given, file, layout) as (stream, encoding):
        table = _Lines(given, stream, encoding, layout)
        lines = iter(table)
        first = _sample(lines)
        delimiter = _delimiter(given, first, layout, usual)
        rows = csv.reader(chain(first, lines), delimiter=delimiter, strict=True)
        try:
            names = _names(given, next(rows, None), delimiter, table.encoding, layout)
            line = rows.line_num + 1
            for fields in rows:
                if fields:
                    yield _row(f"{given}:{line}", names, fields, table)
                line = rows.line_num + 1
        except csv.Error as error:
            raise _broken(f"{given}:{line}", rows.line_num, str(error)) from None


class _Lines:
    """The lines of a table as text; ``encoding`` is known for sure when the first character that is not ASCII has been read."""

    def __init__(self, given: str, stream: Any, encoding: Encoding, layout: FileFormat) -> None:
        self.given, self.encoding, self.layout = given, encoding, layout
        self.raw: Iterator[tuple[int, bytes | None]] = byte_lines(stream)
        self.unsure = encoding.name == "utf-8" and layout.encoding is None

    def __iter__(self) -> Iterator[str]:
        for number, raw in self.raw if self.unsure else ():
            if raw is not None and not raw.isascii():
                ahead = [raw, *self._ahead()]
                self.encoding = encoding_of_table(self.given, number, ahead, self.layout)
                yield from map(self.encoding.decoded, ahead)
                break
            yield _too_long() if raw is None else raw.decode("ascii")
        decoded = self.encoding.decoded
        for _, raw in self.raw:
            yield _too_long() if raw is None else decoded(raw)

    def _ahead(self) -> Iterator[bytes]:
        size = 0
        for _, raw in self.raw:
            yield _too_long().encode() if raw is None else raw
            size += len(raw or b"")
            if size > SAMPLE:
                return


def _too_long() -> str:
    """What stands for a line that is too long: a field that csv refuses."""
    return "x" * (MAX_LINE + 1)


def _sample(lines: Iterator[str]) -> list[str]:
    found, size = [], 0
    for line in lines:
        found.append(line)
        size += len(line)
        if len(found) == SAMPLE_LINES or size > SAMPLE:
            break
    return found


def _delimiter(given: str, lines: Sequence[str], layout: FileFormat, usual: str) -> str:
    if layout.delimiter is not None:
        return delimiter_character(layout.delimiter)
    found = delimiter_of(lines, usual)
    if found != usual:
        layout.told(f"{given}: fields are separated by {shown(found)}", "delimiter", found)
    return found


def delimiter_of(lines: Sequence[str], usual: str = ",") -> str:
    """What separates the fields: with it most of the first rows have as many fields as the header, at least two.

    Args:
        lines: The first lines of the file.
        usual: The delimiter that is taken if others fit no better.
    """
    return max((usual, *DELIMITERS.replace(usual, "")), key=lambda delimiter: _fitting(lines, delimiter))


def _fitting(lines: Sequence[str], delimiter: str) -> float:
    """The share of the first rows that have as many fields as the header; 0 if that has one field."""
    widths = _widths(lines, delimiter)
    return widths.count(widths[0]) / len(widths) if widths and widths[0] > 1 else 0.0


def _widths(lines: Sequence[str], delimiter: str) -> list[int]:
    """The number of fields of each row, as far as they can be read; without the last one, if it may be cut."""
    found: list[int] = []
    with suppress(csv.Error):
        for row in csv.reader(lines, delimiter=delimiter):
            found += [len(row)] if row else []
    is_cut = len(lines) >= SAMPLE_LINES or sum(map(len, lines)) > SAMPLE
    return found[:-1] if is_cut and len(found) > 1 else found


def _names(given: str, names: list[str] | None, delimiter: str, encoding: Encoding, layout: FileFormat) -> list[str]:
    if not names:
        raise EmptyFileError(given)
    if fault := next(filter(None, map(encoding.fault, names)), None):
        raise UserError(f"{given}:1: the names of the fields are {fault}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{given}:1: the first line must name the fields, each once, got {shown(twice[0])} twice")
    other = next((d for d in DELIMITERS if d != delimiter and d in names[0]), None) if len(names) == 1 else None
    if other:
        key = layout.key("delimiter", other)
        meant = f"is it separated by {shown(other)}, not by {shown(delimiter)}?" + (f" {key}" if key else "")
        raise UserError(f"{given}:1: one field named {shown(names[0])}: {meant}")
    return names


def _row(place: str, names: list[str], fields: list[str], table: _Lines) -> ParsedRow:
    if len(fields) != len(names):
        return ParsedRow(place, None, f"has {len(fields)} fields, the first line names {len(names)}")
    if fault := table.encoding.fault("".join(fields)):
        return ParsedRow(place, None, fault)
    return ParsedRow(place, dict(zip(names, fields, strict=True)))


def _broken(place: str, line: int, what: str) -> UserError:
    what = what.replace("\t", "\\t")
    if what.startswith("new-line character"):
        what = "a carriage return outside of quotes; save the file with the line ends of Windows or Unix"
    return UserError(f"{place}: broken CSV (line {line}): {what}; no row behind it can be read")


def read_tsv(given: str, file: Path, layout: FileFormat) -> Iterator[ParsedRow]:
    """As ``read_csv``, with tabs between the fields unless another delimiter fits better."""
    return read_csv(given, file, layout, "\t")


def read_parquet(given: str, file: Path, layout: FileFormat) -> Iterator[ParsedRow]:
    """Yield the rows of a Parquet file, a batch in memory at a time.

    Raises:
        pyarrow.ArrowException: The file is not Parquet, or is damaged.
    """
    import pyarrow.parquet

    del layout
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
