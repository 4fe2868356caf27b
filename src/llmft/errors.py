"""What can go wrong on the user's side, as exceptions that carry their exit code."""

from collections.abc import Sequence

SHOWN_FAULTS = 5


class UserError(Exception):
    """The config or the data is wrong; the message says where and what would be right (exit code 2)."""

    exit_code = 2

    @classmethod
    def from_faults(cls, what: str, faults: Sequence[str]) -> "UserError":
        """One message for many faults: their total, and the first five.

        Args:
            what: What was being checked, e.g. ``"config"`` or a file name.
            faults: One line each, the place first.
        """
        shown = "\n".join(f"  - {fault}" for fault in faults[:SHOWN_FAULTS])
        total = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}"
        rest = f" (the first {SHOWN_FAULTS})" if len(faults) > SHOWN_FAULTS else ""
        return cls(f"{what}: {total}{rest}\n{shown}")


class Halted(Exception):
    """A guard stopped a broken training (exit code 3)."""

    exit_code = 3
