"""Read the rows of a source in order, each with its place."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from llmft.data.sources.content import content_kind
from llmft.data.sources.decompress import ParsedRow, byte_lines, kind
from llmft.data.sources.encoding import opened_text
from llmft.data.sources.file_format import FileFormat
from llmft.data.sources.json import EmptyFileError, read_json, read_jsonl
from llmft.data.sources.resolve import Source
from llmft.data.sources.spreadsheet import read_xlsx
from llmft.data.sources.tabular import read_csv, read_parquet, read_tsv, without_merged_nulls
from llmft.utils.errors import UserError
from llmft.utils.text import first_line

READERS = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".xlsx": read_xlsx,
}


def read(source: Source, say: Callable[[str], None] | None = None) -> Iterator[ParsedRow]:
    """Yield the rows of a source in order; a row that cannot be parsed has a ``fault``.

    Args:
        source: The files, or the Hub data set.
        say: Takes a line about each file whose encoding, delimiter or sheet follows from its content.

    Raises:
        UserError: A file cannot be read (truncated, invalid beyond a single row, empty), or the Hub cannot be reached.
    """
    if source.hub:
        for number, row in enumerate(source.hub.rows(), start=1):
            yield ParsedRow(f"{source.given}:{number}", without_merged_nulls(row))
        return
    layout, empty = replace(source.layout, say=say) if say else source.layout, 0
    for part in source.parts:
        try:
            yield from read_file(part.given, part.file, layout)
        except EmptyFileError:
            empty += 1
            if empty == len(source.parts):  # single shards may be empty
                raise


def read_file(given: str, file: Path, layout: FileFormat = FileFormat()) -> Iterator[ParsedRow]:  # noqa: B008 (frozen)
    """Yield the rows of one file, by the format of its suffix, or of its content if that is none of ours.

    Raises:
        UserError: The file cannot be read.
    """
    import pyarrow

    try:
        if (ending := kind(file)) is None:
            ending = content_kind(file) or ""
            layout.say(f"{given}: is read as {ending} by its content")
        yield from READERS[ending](given, file, layout)
    except (OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        raise UserError(f"{given}: cannot be read: {_reason(error)}") from None


def lines_of(given: str, file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers from 1, without line ends.

    Raises:
        UserError: The file cannot be read, or is not UTF-8.
    """
    try:
        with opened_text(given, file, FileFormat()) as (stream, encoding):
            for number, raw in byte_lines(stream):
                if raw is None:
                    raise UserError(f"{given}:{number}: the line is too long")
                line = encoding.decoded(raw)
                if fault := encoding.fault(line):
                    raise UserError(f"{given}:{number}: {fault}")
                yield number, line.rstrip("\r\n")
    except OSError as error:
        raise UserError(f"{given}: cannot be read: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "the packed file is cut short"
    return first_line(error)
