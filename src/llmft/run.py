"""A run directory: its files, run.json and its status."""

import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from llmft import redact
from llmft.check import check
from llmft.config import user_path
from llmft.errors import UserError

LIBRARIES = ("llmft", "torch", "lightning", "transformers", "peft", "tokenizers", "hydra-core", "omegaconf")


class RunDirectory:
    """Where a run leaves everything; ``run.json`` is rewritten whole at every change, so it is valid at any moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, Any] = {}
        self.started = time.perf_counter()

    @classmethod
    def start(cls, path: Path, cfg: DictConfig, overrides: Sequence[str]) -> "RunDirectory":
        """Make the directory and write ``config.yaml`` and a first ``run.json``.

        Raises:
            UserError: There is a run in it already (one that failed before it had a checkpoint does not count).
        """
        if (path / "run.json").exists() and (status_of(path) != "failed" or (path / "checkpoints").exists()):
            raise UserError(f"output_dir={path}: holds a run already; choose another or remove it")
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        redact.save(cfg, path / "config.yaml")
        run.update(
            status="running",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            command=["llmft", "train", *map(redact.safe_argument, sys.argv[1:])],
            overrides=[redact.safe_argument(override) for override in overrides],
            seed=cfg.seed,
            versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
            git=_git_revision(),
        )
        return run

    @property
    def model(self) -> Path:
        """The best weights in Hugging Face form."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """``last.ckpt`` and ``best.ckpt``."""
        return self.path / "checkpoints"

    def update(self, **values: Any) -> None:
        """Set fields of ``run.json``."""
        self.record |= values
        text = json.dumps(finite(self.record), indent=2, ensure_ascii=False, allow_nan=False)
        unfinished = self.path / "run.json.tmp"
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(self.path / "run.json")

    def finish(self, status: str, **values: Any) -> None:
        """Set the final status and the wall-clock seconds since the start."""
        self.update(status=status, seconds=round(time.perf_counter() - self.started, 1), **values)


def open_run(path: str, part: str = "model") -> tuple[Path, DictConfig]:
    """A run and its config.

    Args:
        path: As the user wrote it.
        part: The folder in it that the command needs: ``model`` or ``halt``.

    Raises:
        UserError: There is no run, or it has no such folder.
    """
    folder = user_path(path)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"run={path}: no run directory (it would hold config.yaml, run.json and model/)")
    if not (folder / part).is_dir():
        raise UserError(f"run={path}: has no {part}/; its status is {status_of(folder)!r}")
    try:
        cfg = OmegaConf.load(folder / "config.yaml")
        if not isinstance(cfg, DictConfig) or not {"model", "data", "peft", "generation", "prompt"} <= set(cfg):
            raise ValueError("it is not the config of a run")
        check(cfg)
    except (ValueError, YAMLError, UserError) as error:
        raise UserError(f"run={path}: config.yaml cannot be used: {error}") from None
    return folder, cfg


def status_of(folder: Path) -> str:
    """The status of a run, ``unknown`` where run.json cannot be read."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def finite(value: Any) -> Any:
    """The value with null for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {str(key): finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _git_revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
