"""``run.json``, the record of a run: its only reader and writer."""

import json
from pathlib import Path
from typing import Any

from llmft.config.metric_names import SCORE_GROUPS
from llmft.utils.errors import UserError
from llmft.utils.json import write as write_json

NAME = "run.json"
NUMBER = (int, float)
# Fields that reports and tables compute with; somebody else may have edited them.
KINDS = {
    "status": str,
    "reason": str,
    "objective": NUMBER,
    "seed": int,
    "seconds": NUMBER,
    "data": dict,
    "exports": list,
    "verdict": dict,
}
NUMBERS = ("parameters", "peak_memory_mib")
METRICS = ("before", "after", *SCORE_GROUPS.values())


def has_record(run: Path) -> bool:
    """Whether a folder holds the record of a run."""
    return (run / NAME).is_file()


def read_record(run: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """The record of a run.

    Args:
        run: The run directory.
        default: Returned if the file is missing or not JSON.

    Raises:
        UserError: The file cannot be read (without ``default``), or a field has another type than llmft writes.
    """
    try:
        record = json.loads((run / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if default is not None:
            return default
        raise UserError(f"{run}: run.json cannot be read ({error})") from None
    if fault := _fault(record):
        raise UserError(f"{run / NAME}: {fault}; llmft did not write it so")
    return record


def run_status(run: Path) -> str:
    """The status of a run; ``unknown`` if its record cannot be read."""
    try:
        return read_record(run, default={}).get("status") or "unknown"
    except UserError:
        return "unknown"


def write_record(run: Path, record: dict[str, Any]) -> None:
    """Replace the record of a run, atomically.

    Raises:
        OSError: Disk full, no permission, ...
    """
    write_json(run / NAME, record)


def _fault(record: Any) -> str | None:
    """The first field with another type than llmft writes, in words."""
    if not isinstance(record, dict):
        return "must be an object"
    for name, kind in KINDS.items():
        if not isinstance(record.get(name), kind | None if isinstance(kind, type) else (*kind, type(None))):
            return f"{name} must not be {str(record[name])[:60]!a}"
    metrics = record.get("metrics") or {}
    if not isinstance(metrics, dict):
        return "metrics must be an object"
    groups = {name: record.get(name) for name in NUMBERS}
    groups |= {f"metrics.{name}": metrics.get(name) for name in METRICS}
    for name, values in groups.items():
        if not isinstance(values or {}, dict) or not all(
            isinstance(value, (*NUMBER, type(None))) for value in (values or {}).values()
        ):
            return f"{name} must hold numbers"
    return None
