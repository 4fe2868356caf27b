"""A sweep: which of its jobs are already done; what is said at its end."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from llmft.config.redact import hide_environment, redact_argument
from llmft.config.swept import announce, forget, job_count
from llmft.runs.record import has_record, read_record
from llmft.sweep import tables
from llmft.utils.console import say
from llmft.utils.errors import INTERRUPTED, UserError
from llmft.utils.lock import is_claimed
from llmft.utils.shell import argument

CODES = {"finished": 0, "pruned": 0, "halted": 3}  # of jobs that would end the same way again


class JobStatus(NamedTuple):
    """The state in which an earlier start of the same sweep left a job."""

    done: bool = False
    resume: bool = False
    code: int = 0
    value: float = float("nan")
    why: str = ""


class SweepFolder(Callback):
    """Keeps the folder of the sweep, in the process that started it."""

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Called once, before any job."""
        SweepFolder.folder = Path(config.hydra.sweep.dir)
        announce(config)
        hide_environment(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Called once, after all jobs."""
        forget()


def previous_status(folder: Path, overrides: list[str]) -> JobStatus:
    """Whether a job is done or can be resumed.

    Args:
        folder: The run directory of the job.
        overrides: Those of the job; an earlier job in the same folder must have had the same ones, unless it failed before
            its first checkpoint.

    Raises:
        UserError: The folder holds another job, or another process is running it.
    """
    if not has_record(folder):
        return JobStatus()
    record = read_record(folder)
    ours, theirs = settings_of(overrides), settings_of(record.get("overrides") or [])
    status = record.get("status", "unknown")
    if ours != theirs:
        differ = [f"{key}={value}" for key, value in theirs.items() if ours.get(key) != value]
        was = " ".join(differ or [f"without {key}" for key in sorted(set(ours) - set(theirs))])
        if status == "failed" and not (folder / "checkpoints").exists():
            return JobStatus(why=f"had failed with other settings ({was})")
        raise UserError(f"{folder}: holds a {status} job of another sweep ({was}); choose another output_dir")
    if status in CODES:
        value = record.get("objective")
        return JobStatus(
            done=True, code=CODES[status], value=float("nan") if value is None else value, why=f"was {status} before"
        )
    if is_claimed(folder):
        raise UserError(
            f"{folder}: another process is running this job; wait for its end, or choose another output_dir"
        )
    resumable = (folder / "config.yaml").is_file() and (
        status != "failed" or (folder / "checkpoints" / "last.ckpt").is_file()
    )
    return JobStatus(resume=resumable, why=f"was {'killed' if status == 'running' else status} before")


def settings_of(overrides: Sequence[str]) -> dict[str, str]:
    """Keys and values of overrides, independent of their quotes, without ``output_dir`` and ``resume``."""
    pairs = (redact_argument(override).split("=", 1) for override in overrides if "=" in override)
    found = {key: value.strip("'\"") for key, value in pairs if key not in ("output_dir", "resume")}
    return {key: value.lower() if value.lower() in ("true", "false") else value for key, value in found.items()}


def finished_value(folder: Path) -> float:
    """The objective of a job that ran in another process; NaN without one."""
    value = read_record(folder).get("objective") if has_record(folder) else None
    return float("nan") if value is None else float(value)


def end() -> list[int]:
    """Write and print the tables of the sweep that this process started; returns the exit codes of its jobs (1: killed)."""
    folder, SweepFolder.folder = SweepFolder.folder, None
    if folder is None:
        return []
    files = sorted(folder.glob("*/run.json"), key=_number)
    if files:
        settings = [settings_of(read_record(file.parent)["overrides"]) for file in files]
        tables.write_tables(folder, files, settings)
    jobs = {file.parent.name: _read(file) for file in sorted(folder.glob("*/job.json"), key=_number)}
    for name, job in jobs.items():
        if job.get("message"):
            say(f"job {name}: {job['message']}")
    _say_kept(folder, jobs)
    forget()  # a sweep that was interrupted has no on_multirun_end
    return [1 if job.get("code") is None else job["code"] for job in jobs.values()]


def _say_kept(folder: Path, jobs: dict[str, dict[str, Any]]) -> None:
    """Which jobs were stopped or not run by this start of the sweep, and how to run them."""
    if stopped := [name for name, job in jobs.items() if job.get("code") in (None, INTERRUPTED)]:
        again = argument("output_dir", str(folder))
        total = job_count()
        of = f" after {len(jobs)} of {total} jobs" if total > len(jobs) else ""
        say(f"stopped in job {', '.join(stopped)}{of}; to resume the sweep: the same command with {again}")
    refused = [name for name, job in jobs.items() if job.get("message")]
    kept = [name for name, job in jobs.items() if job.get("kept")]
    if refused:
        say(f"not run: {len(refused)} of {len(jobs)} jobs; what the table has of them is from an earlier sweep")
    if kept:
        again = argument("output_dir", f"{folder}-2")
        say(
            f"kept: {len(kept)} of {len(jobs)} jobs, done before; a sweep that is repeated runs what is missing. "
            f"To run a job again, delete its folder in {folder}/; to run all of them, choose another folder: {again}",
            style="green",
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None


def _number(file: Path) -> tuple[int, str]:
    name = file.parent.name
    return (int(name) if name.isdigit() else 1 << 30, name)
