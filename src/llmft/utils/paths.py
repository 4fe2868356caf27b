"""Paths as the user gave them."""

from pathlib import Path

from llmft.utils.errors import UserError


def user_path(text: str) -> Path:
    """A path as a user writes it, with ``~``.

    Raises:
        UserError: It is no path, or names the home of a user whom there is not.
    """
    try:
        return Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{text}: {error}") from None
