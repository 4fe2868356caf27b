"""Options in messages, written so that they can be pasted into a shell."""

import re
import shlex
from collections.abc import Iterable

from llmft.utils.text import unresolved

# What Hydra's grammar takes as a string without quotes; words such as true, and numbers, would become other types.
PLAIN = re.compile(r"[A-Za-z_/.][\w./@%+\\|?*:-]*( [\w./@%+\\|?*:-]+)*", re.ASCII)
TYPED = re.compile(r"true|false|null|nan|inf|[\d.]+(e\d+)?", re.IGNORECASE)


def argument(key: str, value: object) -> str:
    """``key=value`` for a shell: quoted for Hydra's grammar where it needs that, and for the shell where that does.

    Args:
        key: A key of the config, or a group.
        value: A string, a number, a bool, None, or a list of strings.
    """
    if isinstance(value, str):
        value = unresolved(value)  # before it is quoted: the line must run when it is pasted
    if isinstance(value, list | tuple):
        return shlex.quote(f"{key}=[{','.join(_text(str(item)) for item in value)}]")
    if value is None:
        return f"{key}=null"
    return shlex.quote(f"{key}={_text(value) if isinstance(value, str) else str(value).lower()}")


def arguments(pairs: Iterable[tuple[str, object]]) -> str:
    """Several of them, separated by spaces."""
    return " ".join(argument(key, value) for key, value in pairs)


def _text(value: str) -> str:
    if PLAIN.fullmatch(value) and not TYPED.fullmatch(value):
        return value
    return '"' + re.sub(r'(\\*)"', r'\1\1\\"', value) + '"'
