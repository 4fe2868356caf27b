"""Paths from the command line or a config."""

import os
from pathlib import Path

from llmft.utils.errors import UserError


def user_path(text: str) -> Path:
    """A path with ``~`` expanded.

    Raises:
        UserError: It is not a valid path, or names the home of an unknown user.
    """
    try:
        return Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{text}: {error}") from None


def ensure_home() -> None:
    """Name a home where there is none: a container's user without a name and without ``HOME``.

    Libraries fail when they are imported without one (nltk), and deal with one that cannot be written to (matplotlib).
    """
    if not os.path.isabs(os.path.expanduser("~")):  # noqa: PTH111, PTH117 (pathlib's raises)
        os.environ["HOME"] = os.devnull
