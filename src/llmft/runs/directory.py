"""A run directory: its files, run.json and its status."""

import logging
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from llmft.config import redact
from llmft.runs.record import has_record, read_record, run_status, write_record
from llmft.utils.errors import UserError
from llmft.utils.files import remove_unfinished
from llmft.utils.lock import DirectoryLock
from llmft.utils.rank import is_first
from llmft.utils.versions import git_revision
from llmft.utils.versions import versions as installed_versions

log = logging.getLogger(__name__)

# Folders of a run with atomically written files, where a killed process may leave temporary names.
WRITTEN = (".", "checkpoints", "model", "report")


class RunDirectory:
    """Where a run leaves everything; ``run.json`` is rewritten whole at every change, so it is valid at any moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, Any] = {}
        self.started = time.perf_counter()
        self.seconds = 0.0  # of earlier legs of a resumed run
        self.step = 0  # the optimizer step that is being computed; 0 for none
        self.claim: DirectoryLock | None = None

    @classmethod
    def start(cls, path: Path, cfg: DictConfig, overrides: Sequence[str]) -> "RunDirectory":
        """Make the directory and write ``config.yaml`` and a first ``run.json``.

        Raises:
            UserError: There is a run in it already (one that failed before it had a checkpoint does not count), or another
                process is writing there.
        """
        run = cls(path)
        run.acquire()
        if is_first() and has_record(path) and (run_status(path) != "failed" or (path / "checkpoints").exists()):
            run.release()
            raise UserError(f"output_dir={path}: holds a run already; choose another or remove it")
        with run.given_back_after_an_error():
            run.save_config(cfg)
            run.update(
                status="running",
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                command=["llmft", "train", *map(redact.redact_argument, sys.argv[1:])],
                overrides=[redact.redact_argument(override) for override in overrides],
                seed=cfg.seed,
                versions=installed_versions(),
                git=git_revision(),
            )
        return run

    @classmethod
    def resume(cls, path: Path, cfg: DictConfig) -> "RunDirectory":
        """Take up a run that was interrupted, or that shall train for longer.

        Raises:
            UserError: Its ``run.json`` cannot be read, or another process is writing there.
        """
        if is_first() and not has_record(path):  # it was killed when it had hardly begun
            return cls.start(path, cfg, [])
        run = cls(path)
        run.acquire()
        with run.given_back_after_an_error():
            run._take_up(cfg)
        return run

    def _take_up(self, cfg: DictConfig) -> None:
        self.record = read_record(self.path)
        self.seconds = self.record.get("seconds") or 0.0
        self.save_config(cfg)
        versions, now = self.record.get("versions", {}), installed_versions()
        changed = [
            f"{name} {versions[name]} -> {now[name]}" for name in now if versions.get(name, now[name]) != now[name]
        ]
        if changed:
            log.warning("versions have changed since the run began, so numbers may too: %s", ", ".join(changed))
        again = [*self.record.get("resumed", []), datetime.now(UTC).isoformat(timespec="seconds")]
        self.update(status="running", resumed=again, versions=now)

    def acquire(self) -> None:
        """Make the directory this process's own, and remove what a killed one had not finished.

        Raises:
            UserError: Another process is writing there, or nobody can.
        """
        if not is_first():
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output_dir={self.path}: cannot be made ({error.strerror})") from None
        self.claim = DirectoryLock(self.path)
        for part in WRITTEN:
            remove_unfinished(self.path / part)

    @contextmanager
    def given_back_after_an_error(self) -> Iterator[None]:
        """The directory is this process's own, unless the block fails."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let another process have the directory."""
        if self.claim:
            self.claim.release()
            self.claim = None

    def save_config(self, cfg: DictConfig) -> None:
        """``config.yaml``: resolved, without secrets."""
        if is_first():
            redact.save_config(cfg, self.path / "config.yaml")

    @property
    def model(self) -> Path:
        """The best weights in Hugging Face form."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """``last.ckpt`` and ``best.ckpt``."""
        return self.path / "checkpoints"

    @property
    def checkpoint(self) -> Path | None:
        """The last whole checkpoint, if there is one."""
        last = self.checkpoints / "last.ckpt"
        return last if last.is_file() else None

    def clear(self) -> None:
        """Remove what a run left that was stopped before its first checkpoint: it starts anew."""
        if is_first():
            for name in ("metrics.csv", "samples.jsonl"):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)

    def update(self, **values: Any) -> None:
        """Set fields of ``run.json``."""
        self.record |= values
        if not is_first():
            return
        write_record(self.path, self.record)

    def finish(self, status: str, **values: Any) -> None:
        """Set the final status and the wall-clock seconds of training (of a resumed run: of all its ended legs)."""
        self.update(status=status, seconds=round(self.seconds + time.perf_counter() - self.started, 1), **values)

    def fail(self, status: str, **values: Any) -> None:
        """``finish`` after an error, which is told even if nothing can be written any more: then ``run.json`` stays as it is."""
        try:
            self.finish(status, **values)
        except OSError as error:
            log.debug("run.json: %s", error)


def tidy(path: Path) -> None:
    """Remove what a process left that was killed when its run had just finished; of one that may not be written to, nothing."""
    run = RunDirectory(path)
    with suppress(UserError):
        run.acquire()
        run.release()
