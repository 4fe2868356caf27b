"""Standard input -> the messages that the user types."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

BLOCK = '"""'


def messages(prompt: str, write: Callable[[str], None]) -> Iterator[str]:
    """Messages until the end of the input.

    A line that ends in a backslash continues on the next line; the lines between two lines of three quotes are one message.

    Args:
        prompt: Shown before each message.
        write: Prints to the terminal.
    """
    while (line := _line(prompt, write)) is not None:
        lines = []
        if line.strip() == BLOCK:
            while (more := _line("... ", write)) is not None and more.strip() != BLOCK:
                lines.append(more)
        else:
            while line is not None and line.endswith("\\"):
                lines.append(line[:-1])
                line = _line("... ", write)
            lines.append(line or "")
        # a terminal with another encoding may send surrogates, which no tokenizer accepts
        if text := "\n".join(lines).strip().encode("utf-8", "replace").decode():
            yield text


def _line(prompt: str, write: Callable[[str], None]) -> str | None:
    """A line without its line end; None at the end of the input. Ctrl-C starts the line again."""
    while True:
        try:
            if not sys.stdin.isatty():
                line = sys.stdin.readline()
                return line.rstrip("\r\n") if line else None
            with suppress(ImportError):  # line editing and history; not built into every Python
                import readline  # noqa: F401
            return input(prompt)
        except EOFError:
            write("\n")
            return None
        except KeyboardInterrupt:
            write("\n(/quit or Ctrl-D leaves)\n")
