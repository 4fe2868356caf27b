"""CSV files without formulas: a spreadsheet shows their cells and does not run them."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llmft.utils.files import atomic_open

# A spreadsheet runs a cell that starts with one of these as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?(e[+-]?\d+)?|inf|nan)", re.ASCII | re.IGNORECASE)


def harmless(value: Any) -> str:
    """The text of a value; one that a spreadsheet would run as a formula gets a ``'`` in front."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def cell(value: Any) -> str:
    """As ``harmless``, but a negative number stays a number."""
    return str(value) if NUMBER.fullmatch(str(value)) else harmless(value)


def write(file: Path, table: Iterable[Iterable[Any]]) -> None:
    """Write a table, whose first row is the header, to a CSV file, atomically."""
    with atomic_open(file, newline="") as out:
        csv.writer(out).writerows([cell(value) for value in row] for row in table)
