"""What can go wrong on the user's side, as exceptions that carry their exit code."""

from collections.abc import Iterator, Sequence

from llmft.utils.text import printable

SHOWN_FAULTS = 5
INTERRUPTED = 130  # the exit code of a command that Ctrl-C or SIGTERM ended, as a shell would say it


class UserError(Exception):
    """The config or the data is wrong; the message says where and what would be right (exit code 2)."""

    exit_code = 2
    everywhere = False  # whether all processes of a run raised it, so that the first one's message is enough

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # it may quote a row, a config or a server

    @classmethod
    def of_all_ranks(cls, message: str) -> "UserError":
        """An error that every process of the run raises."""
        error = cls(message)
        error.everywhere = True
        return error

    @classmethod
    def from_faults(cls, what: str, faults: Sequence[str], shown: int = SHOWN_FAULTS) -> "UserError":
        """One message for many faults: their total, and the first few.

        Args:
            what: What was being checked, e.g. ``"config"`` or a file name.
            faults: One line each, the place first.
            shown: How many of them; a file may have thousands, of a config all are shown.
        """
        lines = "\n".join(f"  - {fault}" for fault in faults[:shown])
        total = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}"
        rest = f" (the first {shown})" if len(faults) > shown else ""
        return cls(f"{what}: {total}{rest}\n{lines}")


class Pruned(Exception):
    """A sweep gave this training up, because others were better at the same point (exit code 0).

    Args:
        message: What happened.
        value: The objective, as last measured.
    """

    exit_code = 0
    everywhere = True

    def __init__(self, message: str, value: float) -> None:
        super().__init__(message)
        self.value = value


class Halted(Exception):
    """A guard stopped a broken training (exit code 3)."""

    exit_code = 3
    everywhere = True  # guards decide on values that are the same in all processes


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, and what caused that; each once, for an error that is raised again and again can cause itself."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def checked(faults: Sequence[str]) -> None:
    """Raise one UserError for all faults of a config.

    Raises:
        UserError: There are faults.
    """
    if faults:
        raise UserError.from_faults("config", faults, shown=len(faults))
