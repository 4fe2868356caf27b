"""Read, smooth and write the curves in ``metrics.csv`` and ``steps.csv``."""

import csv
import math
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from llmft.config.paths import conf_dir
from llmft.utils.csv import write
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.text import first_line

SMOOTHED_FROM = 10  # points
LARGEST_EXPONENT = 700  # of a float, about


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


def read_run(run: Path) -> dict[str, Series]:
    """The curves of a run: those of ``metrics.csv``, with what ``steps.csv`` holds (loss, learning rate) of every step.

    Raises:
        UserError: One of the files cannot be read.
    """
    found, every = read_metrics(run / "metrics.csv"), read_metrics(run / "steps.csv")
    return found | {name: _merged(series, found.get(name)) for name, series in every.items()}


def _merged(every: Series, logged: Series | None) -> Series:
    """The points of both, by step: a run that an earlier version began has only later steps in ``steps.csv``."""
    points = {
        step: (value, epoch) for series in (logged, every) if series for step, value, epoch in zip(*series, strict=True)
    }
    steps = sorted(points)
    return Series(steps, [points[step][0] for step in steps], [points[step][1] for step in steps])


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


def with_perplexity(found: dict[str, Series]) -> dict[str, Series]:
    """The series, with ``train/perplexity`` as exp of the loss of each step (earlier versions logged the epoch's mean).

    A run without ``train/perplexity`` gets none: the loss of a distillation includes the teacher's term.
    """
    if "train/perplexity" not in found or "train/loss" not in found:
        return found
    loss = found["train/loss"]
    return found | {"train/perplexity": loss._replace(values=[perplexity(value) for value in loss.values])}


def perplexity(loss: float) -> float:
    """Exp of a loss in nats per token, as far as a float goes."""
    return math.exp(min(loss, LARGEST_EXPONENT))


def smoothed(series: Series) -> Series | None:
    """Moving average over a twentieth of the points, at least three; centered, so that it does not lag; shorter at the ends.

    Returns:
        None for fewer than ``SMOOTHED_FROM`` points.
    """
    number = len(series.values)
    if number < SMOOTHED_FROM:
        return None
    half, sums = max(1, number // 40), [0.0, *accumulate(series.values)]
    ends = ((max(0, i - half), min(number, i + half + 1)) for i in range(number))
    return series._replace(values=[(sums[high] - sums[low]) / (high - low) for low, high in ends])


def thinned(series: Series, bins: int = 500) -> Series:
    """At most about two points per bin, its lowest and its highest: a page of a long run stays small, its peaks visible."""
    number = len(series.values)
    if number <= 2 * bins:
        return series
    kept = {0, number - 1}
    for start in (number * i // bins for i in range(bins)):
        chunk = range(start, min(number, start + -(-number // bins)))
        kept |= {min(chunk, key=series.values.__getitem__), max(chunk, key=series.values.__getitem__)}
    return Series(*([column[i] for i in sorted(kept)] for column in series))  # pyright: ignore[reportArgumentType]


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
