"""``metrics.csv`` -> series of numbers, and what they say about when to stop."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from llmft.config.metric_names import mode_of
from llmft.config.paths import conf_dir
from llmft.utils.csv import write
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path


class Series(NamedTuple):
    """Values and the optimizer steps that they belong to, both [points]; ``epochs`` beside them where known."""

    steps: list[int]
    values: list[float]
    epochs: list[float]


def read(file: Path, steps_per_epoch: int | None = None) -> dict[str, Series]:
    """The finite values of every column, by name; empty where there is no file.

    Args:
        file: A table with a ``step`` column.
        steps_per_epoch: With it, a table may have epochs (those that have ended) in place of steps.

    Raises:
        UserError: The file is no such table.
    """
    if not file.is_file():
        return {}
    found: dict[str, Series] = {}
    with file.open(newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            try:
                epoch = float(row.get("epoch") or "nan")
                by_epoch = "step" not in row and steps_per_epoch
                step = round(epoch * by_epoch) if by_epoch else int(float(row["step"]))
                numbers = {name: float(v) for name, v in row.items() if name and "/" in name and v not in ("", None)}
            except (KeyError, ValueError, TypeError, OverflowError) as error:
                raise UserError(f"{file}: not a table of step and numbers ({error})") from None
            for name, value in numbers.items():
                if math.isfinite(value):
                    series = found.setdefault(name, Series([], [], []))
                    series.steps.append(step)
                    series.values.append(value)
                    series.epochs.append(epoch)
    return found


def reference(path: str | None, steps_per_epoch: int = 1) -> dict[str, Series]:
    """A published curve, as ``read`` gives it; one by epochs (no ``step``) is placed by the steps of the run's epochs.

    Args:
        path: A CSV file, or the name of one that is shipped with an experiment; None for none.
        steps_per_epoch: Optimizer steps of an epoch of the run that it is drawn beside.

    Raises:
        UserError: There is no such file, or it is no table.
    """
    if path is None:
        return {}
    file = curve_file(path)
    if not file.is_file():
        raise UserError(f"report.reference_curve={path}: no such file")
    return read(file, steps_per_epoch)


def curve_file(path: str) -> Path:
    """Where a published curve is: a file of the user's, or one beside the shipped experiments."""
    given = user_path(path)
    return given if given.is_file() else conf_dir() / "experiment" / path


def write_each(found: Mapping[str, Series], folder: Path) -> None:
    """A CSV file per series: step, epoch, value."""
    for name, series in found.items():
        rows = zip(series.steps, series.epochs, series.values, strict=True)
        write(folder / f"{name.replace('/', '_')}.csv", [("step", "epoch", name), *rows])


def decisive(config: Any) -> tuple[str, str]:
    """The metric by which the checkpoint was chosen whose weights were kept, and its mode (``min``, ``max``, ``auto``)."""
    own = OmegaConf.select(config, "callbacks.checkpoints")
    if isinstance(own, DictConfig) and own.get("monitor"):
        return str(own.monitor), str(own.get("mode", "auto"))
    return OmegaConf.select(config, "objective") or "val/loss", "auto"


def when_to_stop(found: Mapping[str, Series], objective: str, mode: str = "auto") -> str | None:
    """What validation says about the length of the training: it rose in the end, or it was still falling.

    Args:
        found: The series of ``metrics.csv``.
        objective: The metric that decided.
        mode: ``min``, ``max``, or ``auto`` by what is better of this metric.

    Returns:
        A sentence; None with fewer than two validations.
    """
    series = found.get(objective)
    if not objective.startswith("val/"):  # train/loss falls for as long as one trains
        return None
    if series is None or len(series.values) < 2:
        return None
    sign = 1 if (mode_of(objective) if mode == "auto" else mode) == "min" else -1
    best = min(range(len(series.values)), key=lambda i: (sign * series.values[i], i))
    at, last = f"step {series.steps[best]}", f"step {series.steps[-1]}"
    values = f"{series.values[best]:.4g} at {at}", f"{series.values[-1]:.4g} at {last}"
    if series.steps[best] == 0:
        return f"{objective} was best before the training ({values[0]}); it made it worse ({values[1]}): lower optim.lr"
    if series.steps[best] < series.steps[-1] and series.values[best] != series.values[-1]:
        return (
            f"{objective} was best with {values[0]} and had become worse by the end ({values[1]}): more steps would have"
            f" hurt, the last ones did. The weights of {at} were kept"
        )
    return f"{objective} was best at the end ({values[1]}): more steps could help"
