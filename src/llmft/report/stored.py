"""A run directory -> the content of its files, as far as they are there and whole."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from llmft.errors import UserError


def load(run: Path) -> dict[str, Any]:
    """The files of a run: ``record``, ``config`` (as text and as values), ``evaluation``, ``predictions``, ``samples``.

    Raises:
        UserError: There is no run.
    """
    if not (run / "run.json").is_file():
        raise UserError(f"run={run}: no run directory (it would hold run.json)")
    config = _text(run / "config.yaml")
    return {
        "record": _json(run / "run.json") or {},
        "config_text": config,
        "config": OmegaConf.create(config) if config else OmegaConf.create(),
        "evaluation": _json(run / "evaluation.json"),
        "predictions": _json_lines(run / "predictions.jsonl"),
        "samples": _json_lines(run / "samples.jsonl"),
    }


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _json(file: Path) -> Any:
    try:
        return json.loads(_text(file))
    except ValueError:
        return None


def _json_lines(file: Path) -> list[Any]:
    found = []
    for line in _text(file).split("\n"):
        try:
            found.append(json.loads(line))
        except ValueError:  # the end of a file, or of a run that was killed
            continue
    return found
