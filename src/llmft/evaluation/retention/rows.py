"""Rows of ``evaluate.retention``: the shipped set, or a file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from llmft.data.records import Example, RowError, Turn, checked_text, text_of, value_of
from llmft.data.row_fields import chat_example, optional_text
from llmft.data.sources import Source, find_held_out, read
from llmft.data.sources.resolve import SourceFile
from llmft.utils.errors import UserError

KEY = "evaluate.retention"
SHIPPED = Path(__file__).with_name("general.jsonl")
# Category of a row that names none.
UNNAMED = "general"


class RetentionRow(NamedTuple):
    """A general row, and the category that it is reported in."""

    example: Example
    category: str


def read_rows(rows: str) -> list[RetentionRow]:
    """Read and validate the rows.

    Args:
        rows: ``shipped``, or a file (folder, pattern) of rows with ``instruction`` and ``output``, or with ``messages``;
            ``input``, ``system``, ``category`` and ``id`` are optional.

    Raises:
        UserError: There is no such file, it is empty, or rows are invalid; names each.
    """
    found, faults = [], []
    for number, located in enumerate(read(_source(rows)), start=1):
        try:
            if located.fault:
                raise RowError("row", located.fault)
            found.append(_parsed(located.row, located.place, number))
        except RowError as error:
            faults.append(f"{located.place}: {error}")
    if faults:
        raise UserError.from_faults(KEY, faults)
    return found


def _source(rows: str) -> Source:
    if rows == "shipped":
        return Source(rows, (SourceFile(f"{rows}:{SHIPPED.name}", SHIPPED),))
    return find_held_out(KEY, rows)


def _parsed(row: Any, place: str, number: int) -> RetentionRow:
    is_chat = isinstance(row, Mapping) and "messages" in row
    example = chat_example(row) if is_chat else _instruction(row)
    category = optional_text(row, "category").strip() or UNNAMED
    return RetentionRow(replace(example, id=str(row.get("id") or number), place=place), category)


def _instruction(row: Any) -> Example:
    turn = Turn("user", text_of(row, "instruction"), optional_text(row, "input"))
    example = Example((turn,), checked_text(value_of(row, "output"), "output"))
    return example.with_system(optional_text(row, "system").strip() or None)
