"""A run directory: its files, run.json and its status."""

import json
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
from llmft.utils.errors import UserError
from llmft.utils.files import write
from llmft.utils.json import finite
from llmft.utils.lock import DirectoryLock
from llmft.utils.rank import is_first
from llmft.utils.text import escaped
from llmft.utils.versions import git_revision
from llmft.utils.versions import versions as installed_versions

log = logging.getLogger(__name__)

# folders of a run with files that take their name when they are whole
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
        if (
            is_first()
            and (path / "run.json").exists()
            and (status_of(path) != "failed" or (path / "checkpoints").exists())
        ):
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
        if is_first() and not (path / "run.json").exists():  # it was killed when it had hardly begun
            return cls.start(path, cfg, [])
        run = cls(path)
        run.acquire()
        with run.given_back_after_an_error():
            run._take_up(cfg)
        return run

    def _take_up(self, cfg: DictConfig) -> None:
        self.record = self.read(self.path)
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
        for unfinished in (file for part in WRITTEN for file in self.path.joinpath(part).glob("*.tmp")):
            shutil.rmtree(unfinished, ignore_errors=True) if unfinished.is_dir() else unfinished.unlink(missing_ok=True)

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

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """What ``run.json`` of a run holds.

        Raises:
            UserError: It cannot be read.
        """
        try:
            return json.loads((path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: run.json cannot be read ({error})") from None

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
        text = escaped(json.dumps(finite(self.record), indent=2, ensure_ascii=False, allow_nan=False))
        write(self.path / "run.json", text + "\n")

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


def status_of(folder: Path) -> str:
    """The status of a run, ``unknown`` where run.json cannot be read."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
