"""Values -> cells of a CSV file that a spreadsheet shows and does not run."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llmft.whole import whole

# A spreadsheet takes a cell that begins with one of these for a formula, and runs it.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?(e[+-]?\d+)?|inf|nan)", re.ASCII | re.IGNORECASE)


def harmless(value: Any) -> str:
    """A cell that no spreadsheet takes for a formula: a ``'`` goes before one. Numbers stay numbers."""
    text = "" if value is None else str(value)
    is_formula = text.lstrip(" ").startswith(FORMULA) and not NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


def write(file: Path, table: Iterable[Iterable[Any]]) -> None:
    """A CSV file of a table, the head its first row."""
    with whole(file, newline="") as out:
        csv.writer(out).writerows([harmless(cell) for cell in row] for row in table)
