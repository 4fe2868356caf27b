"""A run directory: its files, its record (run.json) and its lock."""

import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config import redact
from llmft.config.stored import stored_config
from llmft.runs.record import has_record, read_record, run_status, write_record
from llmft.utils.errors import UserError
from llmft.utils.files import durable_folder, remove_unfinished
from llmft.utils.lock import DirectoryLock
from llmft.utils.rank import is_first
from llmft.utils.shell import argument
from llmft.utils.versions import git_revision
from llmft.utils.versions import versions as installed_versions

log = logging.getLogger(__name__)

# Folders of a run with atomically written files, where a killed process may leave temporary names.
WRITTEN = (".", "checkpoints", "model", "report")


class RunDirectory:
    """The output folder of a run; ``run.json`` is replaced atomically at every change, so it is always valid."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, Any] = {}
        self.started = time.perf_counter()
        self.seconds = 0.0  # before the run was resumed
        self.step = 0  # the optimizer step in progress; 0 for none
        self.lock: DirectoryLock | None = None

    @classmethod
    def start(cls, path: Path, cfg: DictConfig, overrides: Sequence[str]) -> "RunDirectory":
        """Create the directory and write ``config.yaml`` and a first ``run.json``.

        Raises:
            UserError: It holds a run already (one that failed before its first checkpoint does not count), or another process
                is writing there.
        """
        run = cls(path)
        run.acquire()
        if is_first() and has_record(path) and (run_status(path) != "failed" or (path / "checkpoints").exists()):
            run.release()
            raise UserError(
                f"output_dir={path}: holds a run already; {argument('resume', str(path))} continues it, "
                "or choose another output_dir"
            )
        with run.released_on_error():
            run.save_config(cfg)
            run.update(
                status="running",
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                command=["llmft", "train", *map(redact.redact_argument, sys.argv[1:])],
                overrides=[redact.redact_argument(override) for override in overrides],
                cwd=str(Path.cwd()),
                seed=cfg.seed,
                versions=installed_versions(),
                git=git_revision(),
            )
        return run

    @classmethod
    def resume(cls, path: Path, cfg: DictConfig) -> "RunDirectory":
        """Open the directory of a run that was interrupted, or that trains for longer.

        Raises:
            UserError: Its ``run.json`` cannot be read, or another process is writing there.
        """
        if is_first() and not has_record(path):  # killed before its first record
            return cls.start(path, cfg, [])
        run = cls(path)
        run.acquire()
        with run.released_on_error():
            run._continue(cfg)
        return run

    def _continue(self, cfg: DictConfig) -> None:
        self.record = read_record(self.path)
        self.seconds = self.record.get("seconds") or 0.0
        self.save_config(cfg)
        versions, now = self.record.get("versions", {}), installed_versions()
        changed = [
            f"{name} {versions[name]} -> {now[name]}" for name in now if versions.get(name, now[name]) != now[name]
        ]
        if changed:
            log.warning("versions have changed since the run began, so results may differ: %s", ", ".join(changed))
        again = [*self.record.get("resumed", []), datetime.now(UTC).isoformat(timespec="seconds")]
        self.update(status="running", resumed=again, cwd=str(Path.cwd()), versions=now)

    def acquire(self) -> None:
        """Lock the directory for this process, and clean up after a killed one.

        Raises:
            UserError: Another process is writing there, or the directory cannot be created.
        """
        if not is_first():
            return
        try:
            durable_folder(self.path)
        except OSError as error:
            raise UserError(f"output_dir={self.path}: cannot be made ({error.strerror})") from None
        self.lock = DirectoryLock(self.path)
        for part in WRITTEN:
            remove_unfinished(self.path / part)

    @contextmanager
    def released_on_error(self) -> Iterator[None]:
        """Release the lock if the block fails."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock."""
        if self.lock:
            self.lock.release()
            self.lock = None

    def save_config(self, cfg: DictConfig) -> None:
        """Write ``config.yaml``: resolved, without secrets."""
        if is_first():
            redact.save_config(cfg, self.path / "config.yaml")

    def resolve(self, values: Mapping[str, Any]) -> None:
        """Replace ``auto`` in ``config.yaml`` by values that only the data could tell.

        Args:
            values: By dotted key.
        """
        if not is_first():
            return
        saved = stored_config(self.path / "config.yaml")
        for key, value in values.items():
            OmegaConf.update(saved, key, value)
        self.save_config(saved)

    @property
    def model(self) -> Path:
        """The best weights in Hugging Face format."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """``last.ckpt`` and ``best.ckpt``."""
        return self.path / "checkpoints"

    @property
    def checkpoint(self) -> Path | None:
        """The last checkpoint, if there is one."""
        last = self.checkpoints / "last.ckpt"
        return last if last.is_file() else None

    def clear(self) -> None:
        """Remove the logs of a run that was stopped before its first checkpoint and starts from scratch."""
        if is_first():
            for name in ("metrics.csv", "steps.csv", "samples.jsonl"):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)

    def update(self, **values: Any) -> None:
        """Set fields of ``run.json``."""
        self.record |= values
        if not is_first():
            return
        write_record(self.path, self.record)

    def finish(self, status: str, **values: Any) -> None:
        """Set the final status and the wall-clock seconds of training (of a resumed run: including those before)."""
        self.update(status=status, seconds=round(self.seconds + time.perf_counter() - self.started, 1), **values)

    def fail(self, status: str, **values: Any) -> None:
        """``finish`` after an error; if the disk cannot be written to, ``run.json`` keeps its content."""
        try:
            self.finish(status, **values)
        except OSError as error:
            log.debug("run.json: %s", error)


def tidy(path: Path) -> None:
    """Clean up after a process that was killed when its run had just finished; skip a directory that cannot be written to."""
    run = RunDirectory(path)
    with suppress(UserError):
        run.acquire()
        run.release()
