"""Paths from the command line or a config."""

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
