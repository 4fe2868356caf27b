"""Values -> cells of a CSV file that a spreadsheet shows and does not run."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llmft.utils.files import atomic_open

# A spreadsheet takes a cell that begins with one of these for a formula, and runs it.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?(e[+-]?\d+)?|inf|nan)", re.ASCII | re.IGNORECASE)


def harmless(value: Any) -> str:
    """A cell that no spreadsheet takes for a formula: a ``'`` goes before one."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def cell(value: Any) -> str:
    """The same in a table of results, where a negative number is a number."""
    return str(value) if NUMBER.fullmatch(str(value)) else harmless(value)


def write(file: Path, table: Iterable[Iterable[Any]]) -> None:
    """A CSV file of a table, the head its first row."""
    with atomic_open(file, newline="") as out:
        csv.writer(out).writerows([cell(value) for value in row] for row in table)
