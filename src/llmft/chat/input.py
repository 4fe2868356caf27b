"""Standard input -> what the user typed, one message after the other."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

BLOCK = '"""'


def messages(prompt: str, say: Callable[[str], None]) -> Iterator[str]:
    """Messages until the end of the input.

    A line that ends in a backslash goes on in the next; what stands between two lines of three quotes is one message.
    """
    while (line := _line(prompt, say)) is not None:
        lines = []
        if line.strip() == BLOCK:
            while (more := _line("... ", say)) is not None and more.strip() != BLOCK:
                lines.append(more)
        else:
            while line is not None and line.endswith("\\"):
                lines.append(line[:-1])
                line = _line("... ", say)
            lines.append(line or "")
        # half a character, from a terminal of another encoding, is none that a tokenizer takes
        if text := "\n".join(lines).strip().encode("utf-8", "replace").decode():
            yield text


def _line(prompt: str, say: Callable[[str], None]) -> str | None:
    """A line without its end; None at the end of the input. Ctrl-C begins it anew."""
    while True:
        try:
            if not sys.stdin.isatty():
                line = sys.stdin.readline()
                return line.rstrip("\r\n") if line else None
            with suppress(ImportError):  # editing and history; not built into every Python
                import readline  # noqa: F401
            return input(prompt)
        except EOFError:
            say("\n")
            return None
        except KeyboardInterrupt:
            say("\n(/quit or Ctrl-D leaves)\n")
