"""Read the curves in ``metrics.csv``, and derive advice on the length of the training."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from llmft.config.metric_names import monitor_mode
from llmft.config.paths import conf_dir
from llmft.utils.csv import write
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.text import first_line


class Series(NamedTuple):
    """A curve: values, optimizer steps and epochs (NaN if unknown), each a list of [points]."""

    steps: list[int]
    values: list[float]
    epochs: list[float]


def read_metrics(file: Path, steps_per_epoch: int | None = None) -> dict[str, Series]:
    """Read the finite values of all metric columns, by name; empty if the file does not exist.

    Args:
        file: A CSV file with a ``step`` column.
        steps_per_epoch: If given, a file may have a column ``epoch`` (completed epochs) instead of ``step``.

    Raises:
        UserError: The file has no such columns, or values that are not numbers.
    """
    if not file.is_file():
        return {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as rows:
            return _series(csv.DictReader(rows), steps_per_epoch)
    except (csv.Error, KeyError, ValueError, TypeError, OverflowError) as error:  # ValueError: also what is not UTF-8
        reason = f"no column {error}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(f"{file}: not a table with step and numbers ({reason})") from None


def _series(rows: Iterable[Mapping[str, Any]], steps_per_epoch: int | None) -> dict[str, Series]:
    """The finite values of the columns that hold a metric."""
    found: dict[str, Series] = {}
    for row in rows:
        epoch = float(row.get("epoch") or "nan")
        by_epoch = steps_per_epoch if "step" not in row and "epoch" in row else None
        step = round(epoch * by_epoch) if by_epoch else int(float(row["step"]))
        for name, text in row.items():
            if not name or "/" not in name or text in ("", None):
                continue
            if math.isfinite(value := float(text)):
                series = found.setdefault(name, Series([], [], []))
                series.steps.append(step)
                series.values.append(value)
                series.epochs.append(epoch)
    return found


def reference_curve(path: str | None, steps_per_epoch: int = 1) -> dict[str, Series]:
    """Read a published curve to draw next to a run's; epochs are converted to the steps of this run.

    Args:
        path: A CSV file, or the name of a file shipped with an experiment; None for no curve.
        steps_per_epoch: Optimizer steps per epoch of the run.

    Raises:
        UserError: The file does not exist or is invalid.
    """
    if path is None:
        return {}
    file = curve_file(path)
    if not file.is_file():
        raise UserError(f"report.reference_curve={path}: no such file")
    found = read_metrics(file, steps_per_epoch)
    if not found:
        raise UserError(
            f"report.reference_curve={path}: holds no values; it needs columns step (or epoch) and train/loss or val/loss"
        )
    return found


def curve_file(path: str) -> Path:
    """Path of a published curve: the user's file, or one shipped in conf/experiment."""
    given = user_path(path)
    return given if given.is_file() else conf_dir() / "experiment" / path


def write_csv_files(found: Mapping[str, Series], folder: Path) -> None:
    """Write one CSV file per series: step, epoch, value."""
    for name, series in found.items():
        rows = zip(series.steps, series.epochs, series.values, strict=True)
        write(folder / f"{name.replace('/', '_')}.csv", [("step", "epoch", name), *rows])


def checkpoint_monitor(config: DictConfig) -> tuple[str, str]:
    """The metric that selects the best checkpoint, and its mode (``min``, ``max``, ``auto``)."""
    own = OmegaConf.select(config, "callbacks.checkpoints")
    if isinstance(own, DictConfig) and own.get("monitor"):
        return str(own.monitor), str(own.get("mode", "auto"))
    return OmegaConf.select(config, "objective") or "val/loss", "auto"


def training_length_advice(found: Mapping[str, Series], objective: str, mode: str = "auto") -> str | None:
    """Whether the validation metric got worse before the end (overfitting) or was still improving.

    Args:
        found: The series of ``metrics.csv``.
        objective: The monitored metric.
        mode: ``min``, ``max``, or ``auto`` for the metric's own direction.

    Returns:
        A sentence; None if the metric is not a validation metric or has fewer than two values.
    """
    series = found.get(objective)
    if not objective.startswith("val/"):  # training loss keeps falling while a model overfits
        return None
    if series is None or len(series.values) < 2:
        return None
    sign = 1 if (monitor_mode(objective) if mode == "auto" else mode) == "min" else -1
    best = min(range(len(series.values)), key=lambda i: (sign * series.values[i], i))
    at, last = f"step {series.steps[best]}", f"step {series.steps[-1]}"
    values = f"{series.values[best]:.4g} at {at}", f"{series.values[-1]:.4g} at {last}"
    if series.steps[best] == 0:
        return f"{objective} was best before training ({values[0]}) and got worse ({values[1]}): lower optim.lr"
    if series.steps[best] < series.steps[-1] and series.values[best] != series.values[-1]:
        return (
            f"{objective} was best with {values[0]} and got worse by the end ({values[1]}): train for fewer steps. The"
            f" weights of {at} were kept"
        )
    return f"{objective} was best at the end ({values[1]}): more steps may help"
