"""The console and the log: what a terminal shows and is not steered by."""

import logging
from collections.abc import Iterable
from typing import Any

from rich import console
from rich.segment import Segment

from llmft.utils.errors import UserError
from llmft.utils.rank import is_first
from llmft.utils.text import printable


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


def complain(error: Exception) -> int:
    """Print one clear message, in one process if all met the error; returns the exit code."""
    if is_first() or not getattr(error, "everywhere", False):
        say(str(error))
    # what the system says of a file (no permission, no space) names it, and is for the user to mend
    return getattr(error, "exit_code", UserError.exit_code if isinstance(error, OSError) else 1)


def say(message: str, style: str = "red") -> None:
    """Print to standard error, in colour where there is any."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"llmft: {message}", style=style, markup=False)
