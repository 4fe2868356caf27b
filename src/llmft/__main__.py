"""``python -m llmft [command] key=value ...``: the table of commands, and what their failures look like."""

import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from llmft.command_line import check_command_line, quoted, resumed_dir
from llmft.config import conf_dir, did_you_mean
from llmft.errors import Halted, UserError

COMMANDS = {
    "train": "llmft.commands.train",
    "preview": "llmft.commands.preview",
    "answer": "llmft.commands.answer",
    "export": "llmft.commands.export",
    "restore": "llmft.commands.restore",
    "replay": "llmft.commands.replay",
    "evaluate": "llmft.commands.evaluate",
    "report": "llmft.commands.report",
}
INTERRUPTED = 130
# Flags of Hydra's that ask for something else than running the command.
ASKING = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")


def main() -> None:
    """Entry point of ``python -m llmft`` and of the ``llmft`` script."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    if code == INTERRUPTED:
        # CPython kills itself by SIGINT at its end if the interrupt once passed through exec() of a string (as in making a
        # dataclass), although it was handled; the shell would see -2 instead of our code.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code (0 done, 2 wrong input, 3 halted, 130 interrupted)."""
    try:
        command, rest = split_command(arguments)
        multirun = any(argument in ("-m", "--multirun") for argument in rest)
        rest = [quoted(argument, multirun=multirun) for argument in rest]
        if not any(argument.partition("=")[0] in ASKING for argument in rest):
            check_command_line(command, rest, multirun=multirun)
        rest += resumed_dir(rest)
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

    signal.signal(signal.SIGTERM, interrupt)
    sys.argv = ["llmft", *arguments]  # Hydra's completion script is named after it
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(task)()
    except KeyboardInterrupt:
        return INTERRUPTED
    return max(codes, default=0)


def interrupt(*_: Any) -> None:
    """SIGTERM is what Ctrl-C is."""
    raise KeyboardInterrupt


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
