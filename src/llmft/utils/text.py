"""Texts of rows, models and files that others wrote -> text that steers no terminal and is text in JSON and Markdown."""

import html
import json
import unicodedata
from typing import Any


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


def in_markdown(text: str) -> str:
    r"""One line that a viewer of Markdown, which renders HTML too, shows as text: no tag, link or picture, no cell's end.

    A table of whole words stays readable: ``*``, ``_`` and the like keep what they mean.
    """
    text = html.escape(printable(text).replace("\\", "\\\\"), quote=False)
    return text.replace("|", "\\|").replace("](", "]\\(").replace("`", "\\`").replace("\n", " ")


def _steers(char: str) -> bool:
    if char in "\n\t":
        return False
    return unicodedata.category(char) in ("Cc", "Cs") or "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"
