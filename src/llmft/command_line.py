"""Arguments as people type them -> arguments as Hydra takes them, or all that is wrong with them."""

import re
from pathlib import Path

from llmft.config import composition_faults
from llmft.errors import UserError

# Their values are free text or paths; Hydra's grammar would stumble over commas, quotes and brackets in them.
FREE_TEXT = ("question", "system", "safety.notice", "safety.notice_link")
PATHS = (
    "run",
    "resume",
    "input",
    "output",
    "data.path",
    "data.system",
    "model.path",
    "output_dir",
    "judge.url",
    "runs",
)


def quoted(argument: str, *, multirun: bool) -> str:
    """An argument as Hydra's grammar takes it: free text and paths in quotes; ``debug=true`` names an option."""
    key, equals, value = argument.partition("=")
    if argument == "debug=true":
        return "debug='true'"
    is_text = key in FREE_TEXT or (key in PATHS and not multirun and not value.startswith(("[", "${")))
    in_quotes = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if not (equals and is_text) or value == "null" or in_quotes:
        return argument
    if key in FREE_TEXT:  # text that people type is never an interpolation
        value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    if trailing := len(escaped) - len(escaped.rstrip("\\")):
        escaped += "\\" * trailing
    return f"{key}='{escaped}'"


def check_command_line(command: str, arguments: list[str], *, multirun: bool) -> None:
    """Find what is wrong with the overrides, in our words, before Hydra sees them.

    Raises:
        UserError: All faults in one message.
    """
    from hydra._internal.utils import get_args_parser

    parsed = get_args_parser().parse_args(arguments)
    overrides = [o for o in parsed.overrides if not o.lstrip("+~").startswith("hydra")]
    jobs = swept_jobs(overrides) if multirun else [overrides]
    faults = dict.fromkeys(fault for job in jobs for fault in composition_faults(command, job, parsed.config_dir))
    if faults:
        raise UserError.from_faults("command line", list(faults))
    check_output(overrides)


def swept_jobs(overrides: list[str]) -> list[list[str]]:
    """Overrides of single jobs that together use every swept value once (not every combination: faults lie in values).

    Raises:
        UserError: An override cannot be parsed.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except Exception as error:  # the parser's errors have no common base
        raise UserError(f"command line: {str(error).splitlines()[0]}") from None
    choices = []
    for override in parsed:
        if isinstance(override.value(), Glob):
            continue  # Hydra finds only options that there are
        swept = override.is_sweep_override()
        values = [f"{override.get_key_element()}={v}" for v in override.sweep_string_iterator()] if swept else []
        choices.append(values or [override.input_line or ""])
    return [[c[min(i, len(c) - 1)] for c in choices] for i in range(max(map(len, choices), default=1))]


def check_output(overrides: list[str]) -> None:
    """Make the folder that ``output_dir`` names; Hydra would only show a traceback if that fails.

    Raises:
        UserError: It cannot be made.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "output_dir" and "${" not in value:
            try:
                Path(value.strip("'")).mkdir(parents=True, exist_ok=True)
            except (OSError, ValueError) as error:
                raise UserError(f"output_dir={value}: cannot be made ({error})") from None
