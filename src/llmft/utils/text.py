"""Untrusted text (rows, models, files) without terminal control characters, safe in JSON and Markdown; small text helpers."""

import difflib
import html
import json
import unicodedata
from collections.abc import Iterable
from typing import Any


def printable(text: str) -> str:
    """Replace control characters (except newline and tab) and bidirectional overrides, which would act on a terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(char) else char for char in text)


def json_line(value: Any) -> str:
    """One line of JSON, with control characters escaped.

    Raises:
        ValueError: It holds NaN or infinity.
    """
    return escaped(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))


def escaped(text: str) -> str:
    r"""Equivalent JSON text with control characters as ``\u009b``."""
    return "".join(f"\\u{ord(char):04x}" if _is_control(char) else char for char in text)


def in_markdown(text: str) -> str:
    r"""One line that a Markdown viewer shows as text: no HTML tag, link, image or end of a table cell.

    Emphasis (``*``, ``_``) is not escaped.
    """
    text = html.escape(printable(text).replace("\\", "\\\\"), quote=False)
    return text.replace("|", "\\|").replace("](", "]\\(").replace("`", "\\`").replace("\n", " ")


def _is_control(char: str) -> bool:
    if char in "\n\t":
        return False
    return unicodedata.category(char) in ("Cc", "Cs") or "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"


def first_line(error: BaseException | str) -> str:
    """The first line of an error's message, or the name of its class if it has none; of a text, its first line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "" if isinstance(error, str) else type(error).__name__


def one_line(error: BaseException, limit: int = 300) -> str:
    """The whole message of an error as one line of at most ``limit`` characters, or the name of its class."""
    return printable(" ".join(str(error).split()))[:limit] or type(error).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean X?`` for the closest known word, or an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""


def markdown(rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table whose first row is the header; cells are escaped."""
    lines = [[in_markdown(cell) for cell in row] for row in rows]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours, such as ``12 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
