"""Terminal and log output without control characters from data."""

import logging
from collections.abc import Iterable
from typing import Any

from rich import console
from rich.segment import Segment

from llmft.utils.errors import UserError
from llmft.utils.rank import is_first
from llmft.utils.text import printable


class Console(console.Console):
    """Rich's console; control characters in any text that it prints (table, message, path) are replaced."""

    def render(self, *args: Any, **options: Any) -> Iterable[Segment]:
        """Render as Rich does; control characters of the text are replaced, those of Rich's own styles stay."""
        for segment in super().render(*args, **options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class Formatter(logging.Formatter):
    """Formatter of the log, for the terminal and for ``log.txt``."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record and replace control characters."""
        return printable(super().format(record))


def complain(error: Exception) -> int:
    """Print the message of an error (once, if every rank raised it) and return the exit code."""
    if is_first() or not getattr(error, "everywhere", False):
        say(_message(error))
    # an OSError (no permission, no space) names the file, and is for the user to fix
    return getattr(error, "exit_code", UserError.exit_code if isinstance(error, OSError) else 1)


def _message(error: Exception) -> str:
    """Its text; of an OSError the place and the reason, without the number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def say(message: str, style: str = "red") -> None:
    """Print to standard error, in color if the terminal has it; in a notebook, which shows that in red, to its output."""
    in_notebook = console.Console().is_jupyter
    Console(stderr=not in_notebook, highlight=False, soft_wrap=True).print(
        f"llmft: {message}", style=style, markup=False
    )
