"""Texts of rows, models and files that others wrote -> what a terminal shows and is not steered by."""

import json
import logging
import unicodedata
from collections.abc import Iterable
from typing import Any

from rich import console
from rich.segment import Segment


def printable(text: str) -> str:
    """Text without what would steer the terminal: control characters but newline and tab, and changes of direction."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _steers(char) else char for char in text)


def json_line(value: Any) -> str:
    """JSON in one line that means the same, with what would steer the terminal escaped.

    Raises:
        ValueError: It holds a number that JSON cannot.
    """
    return escaped(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))


def escaped(text: str) -> str:
    r"""JSON text that means the same, with what would steer the terminal as ``\u009b``."""
    return "".join(f"\\u{ord(char):04x}" if _steers(char) else char for char in text)


class Console(console.Console):
    """Rich's console, for which every text is only text, whatever it is part of: a table, a message, a path."""

    def render(self, *args: Any, **options: Any) -> Iterable[Segment]:
        """As Rich does, with the control characters of texts replaced; those of Rich's own are styles and stay."""
        for segment in super().render(*args, **options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class Formatter(logging.Formatter):
    """Log lines, for the terminal and the file."""

    def format(self, record: logging.LogRecord) -> str:
        """As the library does, without what would steer a terminal."""
        return printable(super().format(record))


def _steers(char: str) -> bool:
    if char in "\n\t":
        return False
    return unicodedata.category(char) in ("Cc", "Cs") or "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"
