"""Load the files of a run directory that reports and tables are made of."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from llmft.config.stored import stored_config
from llmft.runs.record import has_record, read_record
from llmft.utils.errors import UserError
from llmft.utils.json import finite


def load(run: Path) -> dict[str, Any]:
    """The files of a run: ``record``, ``config`` (text and values), ``evaluation``, ``predictions``, ``samples``.

    A file that is missing or incomplete is empty or None. NaN and infinity are None: nothing can be ranked or drawn by them.

    Raises:
        UserError: This is no run directory, or somebody changed its record or config.
    """
    if not has_record(run):
        raise UserError(f"run={run}: no run directory (it would hold run.json)")
    config = run / "config.yaml"
    try:
        values = stored_config(config) if config.is_file() else OmegaConf.create()
    except ValueError as error:
        raise UserError(f"{config}: cannot be read ({error})") from None
    return {
        "record": finite(read_record(run, default={})),
        "config_text": _text(config),
        "config": values,
        "evaluation": _json(run / "evaluation.json"),
        "predictions": _json_lines(run / "predictions.jsonl"),
        "samples": _json_lines(run / "samples.jsonl"),
    }


def read_evaluation(run: Path) -> dict[str, Any] | None:
    """The content of a run's ``evaluation.json``; None if nothing was evaluated."""
    file = run / "evaluation.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _json(file: Path) -> Any:
    try:
        return finite(json.loads(_text(file)))
    except ValueError:
        return None


def _json_lines(file: Path) -> list[Any]:
    found = []
    for line in _text(file).split("\n"):
        try:
            found.append(finite(json.loads(line)))
        except ValueError:  # the incomplete last line of a killed run
            continue
    return found
