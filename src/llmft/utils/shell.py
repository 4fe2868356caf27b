"""Options in messages, written so that they can be pasted into a shell."""

import re
import shlex
from collections.abc import Iterable

from llmft.utils.text import unresolved

# What Hydra's grammar takes as a string without quotes; words such as true, and numbers, would become other types.
PLAIN = re.compile(r"[A-Za-z_/.][\w./@%+\\|?*:-]*( [\w./@%+\\|?*:-]+)*", re.ASCII)
QUOTED = re.compile(r"""'[^'\\]*'|"[^"\\]*\"""")
TYPED = re.compile(r"true|false|null|nan|inf|[\d.]+(e\d+)?", re.IGNORECASE)


def argument(key: str, value: object) -> str:
    """``override`` for a shell, quoted where it needs that."""
    return shlex.quote(override(key, value))


def override(key: str, value: object) -> str:
    """``key=value``, quoted where Hydra's grammar needs that.

    Args:
        key: A key of the config, or a group.
        value: A string, a number, a bool, None, or a list of strings.
    """
    if isinstance(value, str):
        value = unresolved(value)  # before it is quoted: the line must run when it is pasted
    if isinstance(value, list | tuple):
        return f"{key}=[{','.join(_text(str(item)) for item in value)}]"
    if value is None:
        return f"{key}=null"
    return f"{key}={_text(value) if isinstance(value, str) else str(value).lower()}"


def arguments(pairs: Iterable[tuple[str, object]]) -> str:
    """Several of them, separated by spaces."""
    return " ".join(argument(key, value) for key, value in pairs)


def command_line(command: str, overrides: Iterable[str]) -> str:
    """The command line that runs a command again.

    Args:
        command: E.g. ``evaluate``.
        overrides: As Hydra has them; strings that were quoted for its grammar are quoted only where a shell needs it.
    """
    return " ".join(["python -m llmft", command, *map(part, overrides)])


def part(override: str) -> str:
    """An override as Hydra has it, or another part of a command line, for a shell; Hydra's quotes stay where it needs them."""
    key, equals, value = override.partition("=")
    return argument(key, value[1:-1]) if QUOTED.fullmatch(value) else shlex.quote(f"{key}{equals}{unresolved(value)}")


def _text(value: str) -> str:
    if PLAIN.fullmatch(value) and not TYPED.fullmatch(value):
        return value
    return '"' + re.sub(r'(\\*)"', r'\1\1\\"', value) + '"'
