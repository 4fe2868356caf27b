"""Untrusted text (rows, models, files) without terminal control characters, safe in JSON and Markdown; small text helpers."""

import difflib
import html
import json
import os
import unicodedata
from collections.abc import Iterable
from typing import Any

# Environment variables that a config reads, and texts that are secrets; see ``unresolved``.
_variables: set[str] = set()
_secrets: set[str] = set()
SHORT = 8  # characters; a shorter value, such as "data", is part of other words


def hide(variables: Iterable[str] = (), secrets: Iterable[str] = ()) -> None:
    """From now on, ``unresolved`` shows these environment variables as interpolations, and these texts as ``***``."""
    _variables.update(variables)
    _secrets.update(secret for secret in secrets if len(secret) >= SHORT)


def unresolved(text: str) -> str:
    """A text in which values that the config takes from the environment are interpolations again, ``${oc.env:NAME}``.

    All messages, logs, and files about a run (not its rows and answers) go through this. Values of less than 8 characters stay,
    unless they are paths.
    """
    if not (_variables or _secrets):
        return text
    values = {os.environ.get(name, ""): f"${{oc.env:{name}}}" for name in _variables}
    values = {
        value: shown for value, shown in values.items() if len(value) >= SHORT or (len(value) > 2 and "/" in value)
    }
    for value, shown in sorted({**values, **dict.fromkeys(_secrets, "***")}.items(), key=lambda item: -len(item[0])):
        for form in {value, html.escape(value), json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1]}:
            text = text.replace(form, shown)
    return text


def printable(text: str) -> str:
    """Replace control characters (except newline and tab) and bidirectional overrides, which would act on a terminal.

    Values from the environment are interpolations again (``unresolved``).
    """
    text = unresolved(text)
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


def as_yaml(value: Any) -> str:
    """A value of a config as on the command line: ``true``, ``null``, ``0.5``."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


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
