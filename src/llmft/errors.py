"""What can go wrong on the user's side, as exceptions that carry their exit code."""

from collections.abc import Sequence

SHOWN_FAULTS = 5


class UserError(Exception):
    """The config or the data is wrong; the message says where and what would be right (exit code 2)."""

    exit_code = 2

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


class Halted(Exception):
    """A guard stopped a broken training (exit code 3)."""

    exit_code = 3
