"""Exceptions with an exit code: wrong input, a halted or pruned training."""

import os
import re
from collections.abc import Iterator, Sequence

from llmft.utils.text import printable

SHOWN_FAULTS = 5
OF_RUST = re.compile(r"\(os error (\d+)\)")  # std::io::Error, in exceptions of tokenizers and safetensors
INTERRUPTED = 130  # exit code after Ctrl-C or SIGTERM, as a shell reports it


class UserError(Exception):
    """The config or the data is wrong; the message names the place and what would be right (exit code 2)."""

    exit_code = 2
    everywhere = False  # whether every rank raised it, so that one message is enough

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # it may quote a row, a config or a server

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of it: the message says what to change, and its frames are llmft's own."""
        return [f"{type(self).__name__}: {self}"]

    @classmethod
    def of_all_ranks(cls, message: str) -> "UserError":
        """An error that every rank of the run raises."""
        error = cls(message)
        error.everywhere = True
        return error

    @classmethod
    def from_faults(cls, what: str, faults: Sequence[str], shown: int = SHOWN_FAULTS) -> "UserError":
        """One message for many faults: how many, and the first few.

        Args:
            what: The subject of the check, e.g. ``"config"`` or a file name.
            faults: One line each, the place first.
            shown: Number of faults in the message; a file may have thousands.
        """
        lines = "\n".join(f"  - {fault}" for fault in faults[:shown])
        total = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}"
        rest = f" (the first {shown})" if len(faults) > shown else ""
        return cls(f"{what}: {total}{rest}\n{lines}")


class Pruned(Exception):
    """A sweep pruned this training: other trials were better at the same validation (exit code 0).

    Args:
        message: What happened.
        value: The last value of the objective.
    """

    exit_code = 0
    everywhere = True

    def __init__(self, message: str, value: float) -> None:
        super().__init__(message)
        self.value = value


class Halted(Exception):
    """A guard stopped a broken training (exit code 3)."""

    exit_code = 3
    everywhere = True  # guards decide on values that are the same on every rank


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes (``__cause__``, ``__context__``), each once: an error that is raised again can be its own cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def as_os_error(error: BaseException) -> OSError | None:
    """An OSError as it is, or the one that a library in Rust (tokenizers, safetensors) raised under another type; else None."""
    if isinstance(error, OSError):
        return error
    found = OF_RUST.search(str(error)) if isinstance(error, Exception) else None
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def checked(faults: Sequence[str]) -> None:
    """Raise one UserError with all faults of a config, if there are any.

    Raises:
        UserError: There is at least one fault.
    """
    if faults:
        raise UserError.from_faults("config", faults, shown=len(faults))
