"""Run one job (a command with its config), in this process or, in a sweep, in another one."""

import importlib
import json
import logging
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig

from llmft.config.override_text import quoted
from llmft.config.redact import hide_environment
from llmft.config.schema.evaluation import Report
from llmft.config.swept import job_count, label, swept_keys
from llmft.config.typed_overrides import task_overrides, typed_overrides
from llmft.config.validate import check_early, check_section
from llmft.data.early import check_data
from llmft.runs.directory import tidy
from llmft.sweep.gpus import gpus_of
from llmft.sweep.results import finished_value, previous_status
from llmft.utils import distributed, files, signals
from llmft.utils.console import complain, say
from llmft.utils.errors import INTERRUPTED, Halted, Pruned, UserError, as_os_error
from llmft.utils.files import remove_empty
from llmft.utils.logging import FILE_ONLY
from llmft.utils.progress import clock
from llmft.utils.rank import is_first, processes_to_start
from llmft.utils.streams import optional_output
from llmft.utils.text import first_line, printable, unresolved

log = logging.getLogger(__name__)

DURATIONS: list[float] = []  # seconds of the jobs that this process has finished
RECORD = "job.json"
OF_DATA = ("train", "preview", "estimate", "prove")  # commands whose config has a data set
WRITES_FILES = ("train", "report", "export", "restore", "schema")
# Launchers whose workers run several jobs: a job that is killed would end its worker and the jobs of the others.
SHARED_WORKERS = ("joblib", "ray")


def attempt(cfg: DictConfig) -> tuple[int, Any]:
    """Run the command of a config; print an error and turn it into an exit code.

    Returns:
        The exit code (0 done, 1 internal error, 2 wrong input, 3 halted, 130 interrupted), and the objective for a sweep.
    """
    job = HydraConfig.get()
    command = str(job.job.config_name)
    hide_environment(cfg, HydraConfig.instance().cfg)
    try:
        if (
            job.mode == RunMode.RUN and not distributed.follows_parent()
        ):  # a refused job of a sweep has a row in its table
            check_early(cfg, command, typed_overrides())
            check_before_imports(command, cfg)
        with optional_output() if _writes_files(command, cfg) else nullcontext():
            return 0, importlib.import_module(f"llmft.commands.{command}").main(cfg)
    except Pruned as error:
        say(str(error))
        return 0, error.value
    except (UserError, Halted, OSError) as error:
        if cfg.get("show_traceback"):
            _trace()
        return complain(error), float("nan")
    except KeyboardInterrupt as error:
        say((job.mode == RunMode.RUN and str(error)) or "interrupted")  # a sweep is resumed as a whole
        return INTERRUPTED, float("nan")
    except Exception as error:
        if (explained := as_os_error(error) or refused_arguments(error)) is None:
            raise
        if cfg.get("show_traceback"):
            _trace()
        return complain(explained), float("nan")
    finally:
        if is_first():  # Hydra makes the folder before the config is checked
            remove_empty(Path(HydraConfig.get().runtime.output_dir))


def refused_arguments(error: Exception) -> UserError | None:
    """The error of a class of another package that does not take the values of its section; None for any other error.

    Args:
        error: As ``hydra.utils.instantiate`` raises it; its text has the class in quotes, and the section at the end.
    """
    if not isinstance(error, InstantiationException) or error.__cause__ is None:
        return None
    target, section = re.search(r"'([\w.]+)'", str(error)), re.search(r"full_key: (\S+)", str(error))
    if target is None or target[1].startswith("llmft."):
        return None
    what = f"{section[1]}: {target[1]}" if section else target[1]
    why = f"{type(error.__cause__).__name__}: {first_line(error.__cause__)}"
    return UserError(f"{what}: cannot be built from its config ({why}); show_traceback=true shows where")


def _writes_files(command: str, cfg: DictConfig) -> bool:
    """Whether files hold the result of a command, so that it need not be printed."""
    return command in WRITES_FILES or (command == "answer" and bool(cfg.get("output")))


def check_before_imports(command: str, cfg: DictConfig) -> None:
    """Refuse data files that are not there, and a GPU that is not there, before the libraries of a training are imported.

    Raises:
        UserError: As ``check_data`` and ``check_accelerator``.
    """
    if command not in OF_DATA or cfg.get("resume"):
        return
    check_data(cfg.data)
    if command == "train" and cfg.trainer.accelerator not in ("auto", "cpu"):
        from llmft.utils.device import check_accelerator  # imports torch, which takes seconds

        check_accelerator(cfg.trainer)


def swept(cfg: DictConfig) -> Any:
    """Run a job of a sweep: skip it if it is done, resume it if it was interrupted; a failed job does not end the sweep.

    ``job.json`` in its folder has the exit code, null while it runs or if it was killed.

    Raises:
        KeyboardInterrupt: The user interrupted it, and with it the sweep.
    """
    job = HydraConfig.get()
    folder, overrides = Path(job.runtime.output_dir), task_overrides()
    hide_environment(cfg, HydraConfig.instance().cfg)
    signals.on_terminate(unless_set=True)  # in a worker; a cluster's launcher has its own handler
    try:
        past = previous_status(folder, overrides)
    except UserError as error:
        _record(folder, error.exit_code, str(error))
        return float("nan")
    if past.done:
        say(f"job {folder.name}: {past.why}, nothing to do", style="green")
        tidy(folder)
        if past.why.startswith("was finished") and cfg.get("report"):
            from llmft.report.html import write_if_outdated  # matplotlib

            write_if_outdated(folder, check_section(cfg.report, Report, "report"))
        _record(folder, past.code, kept=True)
        return past.value
    if past.why and not past.resume:
        say(f"job {folder.name}: {past.why}, starting anew", style="green")
    if past.resume:
        say(f"job {folder.name}: {past.why}, resuming", style="green")
        cfg.resume = str(folder)
    _record(folder, None)
    if is_first():
        say(header(folder.name, int(job.job.num), overrides), style="cyan")
    started = time.monotonic()
    code, value = _in_a_process(cfg, folder, overrides) if _needs_a_process(cfg, job) else _in_this_process(cfg)
    if code == 0:
        DURATIONS.append(time.monotonic() - started)
    _record(folder, code)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return value


def header(name: str, number: int, overrides: Sequence[str]) -> str:
    """The line before a job: ``job 2 (3 of 6): lr=1e-3, r=8; about 2:10 left``.

    Args:
        name: Its folder.
        number: From 0.
        overrides: Of the job.
    """
    total = job_count()
    of = f" ({number + 1} of {total})" if total > number else ""
    settings = label(overrides, swept_keys())
    rest = sum(DURATIONS) / len(DURATIONS) * (total - number) if DURATIONS and of else None
    return f"job {name}{of}{f': {settings}' if settings else ''}" + (
        "" if rest is None else f"; about {clock(rest)} left"
    )


def _in_this_process(cfg: DictConfig) -> tuple[int, Any]:
    try:
        return attempt(cfg)
    except Exception as error:
        kept = Path(HydraConfig.get().runtime.output_dir) / "log.txt"
        if not kept.is_file():
            _trace()
            return complain(error), float("nan")
        log.error("the job failed", exc_info=True, extra=FILE_ONLY)
        say(f"{type(error).__name__}: {first_line(error)} (traceback: {unresolved(str(kept))})")
        return 1, float("nan")


def _trace() -> None:
    sys.stderr.write(printable(traceback.format_exc()))


def _needs_a_process(cfg: DictConfig, job: Any) -> bool:
    """Whether the job starts several processes, or runs in a worker that must survive it."""
    starts_others = cfg.get("trainer") and processes_to_start(cfg.trainer)
    return bool(starts_others) or job.runtime.choices.get("hydra/launcher") in SHARED_WORKERS


def _in_a_process(cfg: DictConfig, folder: Path, overrides: Sequence[str]) -> tuple[int, Any]:
    job = HydraConfig.get()
    given = [f"--config-dir={s.path}" for s in job.runtime.config_sources if s.provider == "command-line"]
    shown = unresolved(str(folder))  # other users see the command line of a process
    where = [f"output_dir={shown}", *([f"resume={shown}"] if cfg.get("resume") else [])]
    command = [sys.executable, "-m", "llmft", job.job.config_name, *given, *overrides]
    command += [quoted(w, multirun=False) for w in where]
    environment = {**os.environ, distributed.FOLLOWS: str(os.getpid())}
    if gpus := gpus_of(cfg, job):
        say(f"job {folder.name}: CUDA_VISIBLE_DEVICES={gpus}", style="cyan")
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    code = subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 (this program, with the user's own overrides)
    if code < 0:
        say(f"job {folder.name}: was killed by {signals.name_of(code)}")
        return 1, float("nan")
    return code, finished_value(folder) if code == 0 else float("nan")


def _record(folder: Path, code: int | None, message: str | None = None, *, kept: bool = False) -> None:
    """Write ``job.json``; its message is printed at the end of the sweep, since output of other machines may be lost.

    ``kept`` says that an earlier start of the sweep has done the job.
    """
    if is_first():
        files.atomic_write(folder / RECORD, json.dumps({"code": code, "message": message, "kept": kept}) + "\n")
