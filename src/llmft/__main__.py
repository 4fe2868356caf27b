"""``python -m llmft [command] key=value ...``: the table of commands, and how their errors end."""

import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmft.config.help import answer
from llmft.config.paths import conf_dir
from llmft.utils.console import complain, say
from llmft.utils.errors import INTERRUPTED, UserError
from llmft.utils.paths import ensure_home
from llmft.utils.signals import on_terminate, terminate
from llmft.utils.streams import guarded, use_utf8
from llmft.utils.text import did_you_mean, printable

COMMANDS = {
    "train": "llmft.commands.train",
    "preview": "llmft.commands.preview",
    "estimate": "llmft.commands.estimate",
    "prove": "llmft.commands.prove",
    "answer": "llmft.commands.answer",
    "chat": "llmft.commands.chat",
    "serve": "llmft.commands.serve",
    "evaluate": "llmft.commands.evaluate",
    "report": "llmft.commands.report",
    "replay": "llmft.commands.replay",
    "export": "llmft.commands.export",
    "restore": "llmft.commands.restore",
    "schema": "llmft.commands.schema",
}
# Hydra's flags that print something instead of running the command.
INFO_FLAGS = ("--hydra-help", "--cfg", "-c", "--info", "-i")


def main() -> None:
    """Entry point of ``python -m llmft`` and of the ``llmft`` script."""
    use_utf8()
    ensure_home()
    try:
        with guarded():
            code = run(sys.argv[1:])
            if code == 0:
                sys.stdout.flush()  # what is still buffered
    except UserError as error:
        code = complain(error)
    if code == INTERRUPTED:
        # CPython kills itself by SIGINT at its end if the interrupt once passed through exec() of a string (as in making a
        # dataclass), although it was handled; the shell would see -2 instead of our code.
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code (0 done, 2 wrong input, 3 halted, 130 interrupted)."""
    try:
        if (text := answer(arguments, list(COMMANDS))) is not None:
            sys.stdout.write(text)
            return 0
    except UserError as error:
        return complain(error)
    return run_command(arguments)


def run_command(arguments: Sequence[str]) -> int:
    """Run a command with Hydra; returns the exit code."""
    # help and completion need neither Hydra nor OmegaConf
    from llmft.config.cli_args import check_command_line, check_output, resumed_dir
    from llmft.config.flags import check_flags, split_flags
    from llmft.config.override_text import quoted
    from llmft.data.auto import with_data_set

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its advice on a home that cannot be written to
    # conf/hydra defines options of plugins under their own names, with all keys
    warnings.filterwarnings("ignore", message="(?s).*is validated against ConfigStore schema.*", category=UserWarning)
    try:
        check_cwd()
        flags, others = split_flags(arguments)
        command, overrides = split_command(others)
        check_flags(command, flags)
        rest = [*flags, *overrides]
        multirun = any(argument in ("-m", "--multirun") for argument in rest)
        if not multirun:
            try:
                rest = named_runs(command, rest)
            except UserError:  # a wrong key is a fault of the line itself, so it is named first
                check_command_line(command, [quoted(argument, multirun=False) for argument in rest], multirun=False)
                raise
        rest = [quoted(argument, multirun=multirun) for argument in rest]
        given = {argument.partition("=")[0] for argument in flags}
        folder: list[str] = []
        if "--hydra-help" not in given:
            rest = with_data_set(command, rest)
            folder = check_command_line(command, rest, multirun=multirun)
        if not given & set(INFO_FLAGS):
            if multirun:
                from llmft.sweep.precheck import check_sweep  # with the schema, which --cfg does not need

                check_sweep(command, rest)
            check_output(rest)
            rest += folder
        rest += resumed_dir(rest)
        if multirun:  # a sweep's output_dir holds its runs
            rest = [re.sub("^output_dir=", "hydra.sweep.dir=", argument) for argument in rest]
        return launch(command, rest, multirun=multirun)
    except KeyboardInterrupt:  # before or after the work, or while a sweep's tables were written
        return INTERRUPTED
    except (UserError, OSError) as error:
        return complain(error)


def check_cwd() -> None:
    """Check that the working directory exists: relative paths, and Hydra, need it.

    Raises:
        UserError: It has been removed.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the working directory has been removed; change to another one") from None


def split_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command (``train`` by default) and the other arguments.

    Raises:
        UserError: There is no such command.
    """
    first = arguments[0] if arguments else ""
    if not first or "=" in first or first[0] in "-+~":
        return "train", list(arguments)
    if first not in COMMANDS:
        known = ", ".join(COMMANDS)
        hint = did_you_mean(first, COMMANDS)
        if not hint and len(arguments) > 1:  # lr 1e-3, optim.lr = 1e-3, optim.lr: 1e-3
            value = next((text for text in arguments[1:] if text != "="), "").removeprefix("=")
            hint = f" Options have no spaces: {first.rstrip(':')}={value}" if "=" not in value else ""
        raise UserError(f"{first}: no such command.{hint} There are: {known}; options are key=value")
    return first, list(arguments[1:])


def named_runs(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments with ``run=latest``, or a folder that holds one run, as the path of that run; says which it is."""
    from llmft.runs.find import with_run

    found = [with_run(argument, command) for argument in arguments]
    for _, which in found:
        if which:
            say(which, style="green")
    return [argument for argument, _ in found]


def launch(command: str, arguments: list[str], *, multirun: bool) -> int:
    """Run the command with Hydra; a job that fails does not end a sweep."""
    import hydra

    from llmft.utils import distributed

    codes: list[int] = []

    def single(cfg: Any) -> Any:
        from llmft.sweep.job import attempt  # with the schema, which --cfg and --info do not need

        code, result = attempt(cfg)
        codes.append(code)
        return result

    task = single
    if multirun:
        from llmft.sweep.job import swept
        from llmft.sweep.sweeper import keep_secrets_out

        keep_secrets_out()
        task = swept  # a job may be pickled for another process, so it is a module-level function
        # also in a launcher's workers, where Hydra composes again
        given = [rule for rule in os.environ.get("PYTHONWARNINGS", "").split(",") if rule]
        ours = "ignore::UserWarning:multiprocessing.process"
        os.environ["PYTHONWARNINGS"] = ",".join(dict.fromkeys([*given, ours]))
    on_terminate()
    if distributed.follows_parent():
        distributed.follow(os.getppid(), terminate)
    # Hydra's completion script is named after the program; Lightning starts it again for the other processes
    sys.argv = ["llmft" if sys.argv[0].endswith("__main__.py") else sys.argv[0], *arguments]
    program = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(task)
    codes.append(code_of(program))
    if multirun:
        from llmft.sweep import results

        codes += results.end()
    return max(codes, default=0)


def code_of(program: Callable[[], Any]) -> int:
    """Run a program of Hydra's; prints an error and returns the exit code."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise; otherwise Hydra prints a traceback and exits
    try:
        program()
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except OSError as error:  # a file of Hydra's own, such as multirun.yaml
        return complain(error)
    except Exception as error:
        refused = isinstance(error, HydraException | OmegaConfBaseException)
        if refused and not isinstance(error, InstantiationException):
            return complain(UserError(str(error) or type(error).__name__))
        # a fault of ours
        sys.stderr.write(printable(traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    main()
