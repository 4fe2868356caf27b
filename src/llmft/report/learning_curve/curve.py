"""The runs of a learning curve, and in one sentence what more rows would give."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from llmft.config.setting_names import label
from llmft.metrics.format import format_number
from llmft.metrics.power_law import MIN_GAIN, MIN_SIZES, Extrapolation, extrapolate
from llmft.report.leaderboard.runs import BoardRun
from llmft.report.leaderboard.settings import differing_settings, grouped

KEY = "data.train_fraction"
LIMIT = f"{100 * MIN_GAIN:.0f} %"
RULE = (
    "The rule: a power law a + b n^-c is fitted to the runs, with a 95 % interval by a bootstrap of their residuals. More rows, "
    f"if twice the rows lower the loss by more than {LIMIT} at the lower end of the interval; other rows or another model, if by "
    "less than that at its upper end; else it is not decided. The validation rows are the same in all runs, and so is the "
    "number of optimizer steps: a smaller part is repeated more often, and each run counts with its best checkpoint."
)


class Point(NamedTuple):
    """A run of a learning curve.

    Attributes:
        examples: Different examples that it was trained on.
        loss: Validation loss of its best checkpoint.
    """

    run: BoardRun
    fraction: float
    examples: int
    loss: float


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Runs that differ only in ``data.train_fraction`` and their seed, smallest fraction first."""

    label: str
    metric: str
    points: Sequence[Point]

    @cached_property
    def fractions(self) -> dict[float, list[Point]]:
        """The points of each fraction."""
        found: dict[float, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.fraction, []).append(point)
        return found

    @cached_property
    def extrapolation(self) -> Extrapolation | None:
        """Twice the rows by the fitted curve; None if there are too few fractions."""
        if len(self.fractions) < MIN_SIZES:
            return None
        return extrapolate([p.examples for p in self.points], [p.loss for p in self.points])

    @property
    def answer(self) -> str:
        """What to look for: ``More rows``, ``Other rows, other model``, ``Not decided``, or ``No extrapolation``."""
        found = self.extrapolation
        return f"{found.answer[:1].upper()}{found.answer[1:]}" if found else "No extrapolation"

    @property
    def sentence(self) -> str:
        """The answer with its numbers."""
        found = self.extrapolation
        if found is None:
            sizes = f"{len(self.fractions)} different numbers of rows"
            return f"No extrapolation: {sizes}; a power law, of three parameters, takes {MIN_SIZES} or more"
        low, high = (format_number(round(end, 3)) for end in found.interval)
        change = f"would lower {self.metric} by {format_number(round(found.gain, 3))} (95 % interval {low} to {high})"
        text = f"{self.answer}: twice the rows ({2 * found.examples:,}) {change}, from {format_number(self.rows()[-1]['mean'])}"
        if found.answer == "more rows":
            return text
        limit = f"{LIMIT} of the loss"
        if found.answer == "not decided":
            return f"{text}; the interval holds {limit} ({format_number(MIN_GAIN * found.loss)}): more seeds make it narrower"
        return f"{text}, less than {limit}"

    def rows(self) -> list[dict[str, Any]]:
        """A line for each fraction: numbers of examples, loss over the seeds, and the runs."""
        return [
            {
                "fraction": fraction,
                "examples": round(statistics.mean(point.examples for point in points)),
                "seeds": len(points),
                "mean": statistics.mean(point.loss for point in points),
                "deviation": statistics.stdev(p.loss for p in points) if len(points) > 1 else None,
                "runs": [point.run for point in points],
            }
            for fraction, points in self.fractions.items()
        ]


def learning_curves(runs: Sequence[BoardRun]) -> list[LearningCurve]:
    """The learning curves among some runs: of the finished ones that have a loss as their objective.

    Runs of one curve are equal in all settings but ``data.train_fraction`` and seeds; a group with one fraction is none.
    """
    points = [point for run in runs if (point := _point(run))]
    of = {point.run: point for point in points}
    keys = [key for key in differing_settings(list(of)) if key != KEY]
    found = []
    for group in grouped(of, keys):
        own = sorted((of[run] for run in group), key=lambda point: (point.fraction, point.run.seed or 0))
        if len({point.fraction for point in own}) > 1:
            found.append(LearningCurve(label(group[0].settings, keys), group[0].monitor, own))
    return found


def _point(run: BoardRun) -> Point | None:
    trained, fraction = run.data.get("train"), run.settings.get(KEY)
    examples = trained.get("examples") if isinstance(trained, dict) else None
    loss = run.objective
    if not (run.is_finished and run.monitor.startswith("val/") and run.monitor.endswith("loss") and loss):
        return None
    if not (isinstance(examples, int) and examples > 0 and isinstance(fraction, int | float) and math.isfinite(loss)):
        return None
    return Point(run, float(fraction), examples, loss)
