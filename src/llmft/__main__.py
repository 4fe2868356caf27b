"""``python -m llmft [command] key=value ...``: the table of commands, and what their failures look like."""

import importlib
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmft.config import composition_faults, conf_dir, did_you_mean
from llmft.errors import Halted, UserError

COMMANDS = {
    "train": "llmft.commands.train",
    "preview": "llmft.commands.preview",
    "answer": "llmft.commands.answer",
}
INTERRUPTED = 130
# Their values are free text or paths; Hydra's grammar would stumble over commas, quotes and brackets in them.
FREE_TEXT = ("question", "system")
PATHS = ("run", "input", "output", "data.path", "data.system", "model.path", "output_dir")
# Flags of Hydra's that ask for something else than running the command.
ASKING = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")


def main() -> None:
    """Entry point of ``python -m llmft`` and of the ``llmft`` script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code (0 done, 2 wrong input, 3 halted, 130 interrupted)."""
    try:
        command, rest = split_command(arguments)
        multirun = any(argument in ("-m", "--multirun") for argument in rest)
        rest = [quoted(argument, multirun=multirun) for argument in rest]
        if not any(argument.partition("=")[0] in ASKING for argument in rest):
            check_command_line(command, rest, multirun=multirun)
        if multirun:  # a sweep's output_dir holds its runs
            rest = [re.sub("^output_dir=", "hydra.sweep.dir=", argument) for argument in rest]
        return launch(command, rest)
    except UserError as error:
        return complain(error)


def split_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command (``train`` if none is named) and the other arguments.

    Raises:
        UserError: There is no such command.
    """
    first = arguments[0] if arguments else ""
    if not first or "=" in first or first[0] in "-+~":
        return "train", list(arguments)
    if first not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise UserError(
            f"{first}: no such command.{did_you_mean(first, COMMANDS)} There are: {known}; options are key=value"
        )
    return first, list(arguments[1:])


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


def launch(command: str, arguments: list[str]) -> int:
    """Hand over to Hydra; a job that fails says so and does not end a sweep."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    codes: list[int] = []

    def task(cfg: Any) -> Any:
        try:
            result = importlib.import_module(COMMANDS[command]).main(cfg)
        except (UserError, Halted) as error:
            if cfg.get("show_traceback"):
                traceback.print_exc()
            codes.append(complain(error))
            return float("nan")
        except KeyboardInterrupt:
            codes.append(INTERRUPTED)
            say("interrupted")
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            return float("nan")
        except Exception as error:
            if HydraConfig.get().mode != RunMode.MULTIRUN and not isinstance(error, OSError):
                raise
            if not isinstance(error, OSError) or cfg.get("show_traceback"):
                traceback.print_exc()
            codes.append(complain(error))
            return float("nan")
        codes.append(0)
        return result

    sys.argv = [f"llmft {command}", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(task)()
    except KeyboardInterrupt:
        return INTERRUPTED
    return max(codes, default=0)


def complain(error: Exception) -> int:
    """Print one clear message; returns the exit code."""
    say(str(error))
    # what the system says of a file (no permission, no space) names it, and is for the user to mend
    return getattr(error, "exit_code", UserError.exit_code if isinstance(error, OSError) else 1)


def say(message: str) -> None:
    """Print to standard error, in red where there is colour."""
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(f"llmft: {message}", style="red", markup=False)


if __name__ == "__main__":
    main()
