"""Standard streams that cannot be used: closed by the shell (``>&-``), a pipe without a reader (``| head``), a full disk.

What a command prints is its result, so a reader that has left (``| head``) ends it with exit code 0, and any other failed write
is an error. Messages and the log on standard error stop nothing; nor does standard output where files hold the result
(a run directory, an export).
"""

import codecs
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import TextIOWrapper
from typing import Any, NoReturn, cast

from llmft.utils.errors import UserError

ESCAPES = "llmft.json"  # name of the codec error handler


class Guarded:
    """A text stream whose failed writes have one outcome; everything else is the stream's own.

    Args:
        stream: ``sys.stdout`` or ``sys.stderr``.
        optional: Drop what cannot be written, and all that follows.
    """

    def __init__(self, stream: Any, *, optional: bool = False) -> None:
        self.stream, self.optional = stream, optional

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write; returns the number of characters.

        Raises:
            SystemExit: The reader has left, with code 0.
            UserError: The text cannot be written.
        """
        try:
            return self.stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts; raises as ``write``."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush; raises as ``write``."""
        try:
            self.stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        _discard(self.stream)
        if not self.optional:
            _stop(error)


@contextmanager
def guarded() -> Iterator[None]:
    """Guard both standard streams of a process while the block runs.

    Raises:
        SystemExit: Nobody reads standard output any more.
        UserError: Standard output cannot be written to.
    """
    _open_missing()
    for stream in (sys.stdout, sys.stderr):
        cast(TextIOWrapper, stream).reconfigure(errors=ESCAPES)
    out, err = Guarded(sys.stdout), Guarded(sys.stderr, optional=True)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.optional = True  # how the block ended is the outcome
            out.flush()
            err.flush()


@contextmanager
def optional_output() -> Iterator[None]:
    """Let the block continue if standard output cannot be written to: files hold the result."""
    out = Guarded(sys.stdout.stream if isinstance(sys.stdout, Guarded) else sys.stdout, optional=True)
    with redirect_stdout(out):
        try:
            yield
        finally:
            out.flush()


def use_utf8() -> None:
    """Start this process again in Python's UTF-8 mode if its locale allows ASCII only, in arguments and file names too."""
    if sys.getfilesystemencoding() == "ascii" and sys.orig_argv:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 (this program again)


def _stop(error: OSError) -> NoReturn:
    if isinstance(error, BrokenPipeError):
        raise SystemExit(0) from None
    raise UserError(f"standard output: cannot be written to ({error.strerror})") from None


def _open_missing() -> None:
    """Open standard streams that the shell has closed; otherwise the next file that is opened would take their number.

    Standard output is opened for reading, so that writing to it is an error, as for other programs.
    """
    for number, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, flags)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            opened = os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False)
            setattr(sys, name, opened)
            setattr(sys, f"__{name}__", opened)


def _discard(stream: Any) -> None:
    """Send all that follows, and what is still buffered, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _json_escape(error: UnicodeError) -> tuple[str, int]:
    r"""Characters that the terminal's encoding lacks, as ``\u00e9``, which is valid in JSON too."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(ESCAPES, _json_escape)
