"""Flags of the command line: anywhere on it, and refused in our words where Hydra would print argparse's usage."""

import re
import shlex
from argparse import Namespace
from collections import deque
from collections.abc import Sequence
from typing import Any, NoReturn

from llmft.config.compose import composition_faults
from llmft.utils.errors import UserError

SHORT = 2  # characters of a flag such as -m; its value may follow directly


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags (with their values, as ``--flag=value``) and the other arguments; Hydra takes flags before overrides only.

    Raises:
        UserError: A flag lacks its value.
    """
    flags, others, waiting = [], [], deque(arguments)
    while waiting:
        argument = waiting.popleft()
        if argument.startswith("-"):
            flags.append(_with_value(argument, waiting))
        else:
            others.append(argument)
    return flags, others


def _with_value(flag: str, waiting: deque[str]) -> str:
    """A flag with its value, which is taken from the arguments behind it."""
    action = _actions().get(flag)
    follows = bool(waiting) and not waiting[0].startswith("-")
    is_word = follows and "=" not in waiting[0]
    is_run = flag == "--run"  # Hydra's has no value; run=RUN is meant
    if action is None or is_run:  # an option with dashes, such as --lr 1e-3; check_flags refuses it
        is_complete = "=" in flag or (_is_known(flag) and not is_run)
        return f"{flag}={waiting.popleft()}" if is_word and not is_complete else flag
    if action.nargs == 0:
        return flag
    optional = action.nargs == "?"
    has_value = is_word if optional or action.choices else follows
    value = waiting.popleft() if has_value else action.const if optional else None
    if value is None:
        one_of = f"one of {', '.join(action.choices)}" if action.choices else "a value"
        raise UserError(f"{flag}: needs {one_of}")
    return f"{action.option_strings[0]}={value}"


def check_flags(command: str, flags: Sequence[str]) -> None:
    """Refuse flags that do not exist, and those of Hydra that would replace our configs or load a pickle.

    Args:
        command: E.g. ``train``; options that were written with dashes are looked up in its config.
        flags: As ``split_flags`` returns them.

    Raises:
        UserError: One of them is given.
    """
    if unknown := [flag for flag in flags if not _is_known(flag)]:
        raise UserError.from_faults("command line", [_undashed(command, flag) for flag in unknown])
    parsed = parse_arguments(flags)
    if parsed.config_path or parsed.config_name:
        raise UserError("--config-path and --config-name: the commands have their own; --config-dir=DIR adds yours")
    if parsed.experimental_rerun:
        raise UserError("--experimental-rerun: would load a pickle; resume=RUN continues a run")


def parse_arguments(arguments: Sequence[str]) -> Namespace:
    """Flags and overrides, parsed by Hydra's parser.

    Raises:
        UserError: It refuses a flag.
    """
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"command line: {message}")

    parser = get_args_parser()
    parser.error = refuse
    return parser.parse_args(list(arguments))


def _actions() -> dict[str, Any]:
    from hydra._internal.utils import get_args_parser

    return {name: action for action in get_args_parser()._actions for name in action.option_strings}


def _is_known(flag: str) -> bool:
    actions = _actions()
    name = flag.partition("=")[0]
    if name in actions:
        return actions[name].nargs != 0 or "=" not in flag
    return not flag.startswith("--") and flag[:SHORT] in actions


def _undashed(command: str, flag: str) -> str:
    """What an option with dashes should have been."""
    name, equals, value = flag.lstrip("-").partition("=")
    key = name.replace("-", "_")
    if not equals or not key:
        return f"{flag}: no such flag; options have no dashes: key=value"
    faults = composition_faults(command, [f"{key}={value}"])
    meant = re.search(r"Did you mean (.*)\?", faults[0]) if faults else None
    return f"{flag}: options have no dashes; write {meant[1] if meant else shlex.quote(f'{key}={value}')}"
