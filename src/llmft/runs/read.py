"""A run directory -> the content of its files, as far as they are there and whole."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from llmft.config.stored import stored_config
from llmft.utils.errors import UserError

NUMBER = (int, float)
# What of run.json others may have changed, and pages and tables would stumble over.
KINDS = {"status": str, "reason": str, "objective": NUMBER, "seed": int, "seconds": NUMBER, "data": dict}
NUMBERS = ("parameters", "peak_memory_mib")


def load(run: Path) -> dict[str, Any]:
    """The files of a run: ``record``, ``config`` (as text and as values), ``evaluation``, ``predictions``, ``samples``.

    Raises:
        UserError: There is no run.
    """
    if not (run / "run.json").is_file():
        raise UserError(f"run={run}: no run directory (it would hold run.json)")
    record = _json(run / "run.json")
    record = {} if record is None else record
    if odd := _odd(record):
        raise UserError(f"{run / 'run.json'}: {odd}; llmft did not write it so")
    config = run / "config.yaml"
    try:
        values = stored_config(config) if config.is_file() else OmegaConf.create()
    except ValueError as error:
        raise UserError(f"{config}: cannot be read ({error})") from None
    return {
        "record": record,
        "config_text": _text(config),
        "config": values,
        "evaluation": _json(run / "evaluation.json"),
        "predictions": _json_lines(run / "predictions.jsonl"),
        "samples": _json_lines(run / "samples.jsonl"),
    }


def _odd(record: Any) -> str | None:
    """What of a record is of another kind than ours are."""
    if not isinstance(record, dict):
        return "must be an object"
    for name, kind in KINDS.items():
        if not isinstance(record.get(name), kind | None if isinstance(kind, type) else (*kind, type(None))):
            return f"{name} must not be {str(record[name])[:60]!a}"
    metrics = record.get("metrics") or {}
    counted = {name: record.get(name) for name in NUMBERS}
    if isinstance(metrics, dict):
        counted |= {f"metrics.{name}": metrics.get(name) for name in ("before", "after", "test")}
    else:
        return "metrics must be an object"
    for name, values in counted.items():
        if not isinstance(values or {}, dict) or not all(
            isinstance(v, (*NUMBER, type(None))) for v in (values or {}).values()
        ):
            return f"{name} must hold numbers"
    return None


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
