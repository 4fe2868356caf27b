"""By which score groups of runs are ranked.

By their objective, if it was measured on the same rows in the same tokens; else by a score over the rows that they share, in nats
per byte where tokenizers differ.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmft.config.metric_names import BETTER, monitor_mode
from llmft.report.leaderboard import significance
from llmft.report.leaderboard.runs import BoardRun
from llmft.report.leaderboard.shared_rows import SharedRows, shared_rows
from llmft.report.leaderboard.significance import Difference

TEXT_SCORES = ("chrf", "f1", "bleu")  # ranked by the first that is there, if losses cannot be compared
UNITS = {"loss": "loss", "nats_per_byte": "nats/byte"}


def shared_name(metric: str) -> str:
    """The column of a score over the shared rows."""
    return f"{UNITS.get(metric, metric)} (shared rows)"


@dataclass(eq=False)
class Group:
    """Runs that differ only in their seed.

    Attributes:
        runs: In the order of their names.
        label: The settings in which it differs from the others.
        number: Its number in ``SharedRows``; None if it has no predictions.
        rank: From 1; 0 if it is not ranked.
        values: The score that it is ranked by, of each run.
        interval: Its 95 % interval, if it is over shared rows.
        against: Its difference from the best, corrected for the number of groups; None for the best, or if unknown.
    """

    runs: list[BoardRun]
    label: str
    number: int | None = None
    rank: int = 0
    values: list[float] = field(default_factory=list)
    interval: Sequence[float] | None = None
    against: Difference | None = None

    @property
    def value(self) -> float:
        """The mean over its runs."""
        return statistics.mean(self.values)


@dataclass(frozen=True, eq=False)
class Criterion:
    """What groups are ranked by.

    Attributes:
        name: Its column, such as ``val/loss`` or ``nats/byte (shared rows)``.
        better: ``lower`` or ``higher``.
        metric: The score over shared rows that it is, or that stands beside it in the paired bootstrap.
        over_rows: Whether it is over the shared rows.
        per_byte: Whether it is the validation loss in nats per byte.
        why: Why it is not simply the objective; "" if it is.
        comparable: False if nothing could be compared on equal terms.
    """

    name: str
    better: str
    metric: str | None
    over_rows: bool = False
    per_byte: bool = False
    why: str = ""
    comparable: bool = True

    def of_objective(self, run: BoardRun, value: float | None) -> float | None:
        """A value of the objective as this criterion states it."""
        if not self.per_byte or value is None:
            return value
        loss = math.log(max(value, 1)) if run.monitor.endswith("perplexity") else value
        return loss * run.validation["tokens"] / run.validation["bytes"]


def ranked(groups: Sequence[Group], objective: str) -> tuple[list[Group], Criterion, SharedRows | None]:
    """Rank groups, best first, and compare each with the best.

    Returns:
        The groups that have a value, the criterion, and the shared rows of all groups with predictions.
    """
    answered = [group for group in groups if any(run.predictions for run in group.runs)]
    for number, group in enumerate(answered):
        group.number = number
    shared = shared_rows([group.runs for group in answered]) if answered else None
    criterion = _criterion(groups, objective, shared)
    for group in groups:
        _set_values(group, criterion, shared)
    found = [group for group in groups if group.values]
    sign = 1 if criterion.better == "lower" else -1
    found.sort(key=lambda group: sign * group.value)
    for rank, group in enumerate(found, start=1):
        group.rank = rank
    differences = [_against(group, found[0], criterion, shared, len(found)) for group in found[1:]]
    for group, difference in zip(found[1:], significance.corrected(differences), strict=True):
        group.against = difference
    return found, criterion, shared


def _criterion(groups: Sequence[Group], objective: str, shared: SharedRows | None) -> Criterion:
    """See the module."""
    name = objective.rpartition("/")[2]
    is_loss, better = name in ("loss", "perplexity"), "higher" if monitor_mode(objective) == "max" else "lower"
    same_rows = _same(groups, _measured_rows)
    same_tokens = _same_tokens(groups, shared)
    metric = _row_metric("loss" if is_loss else name, shared)
    if same_rows and (same_tokens or not is_loss):
        return Criterion(objective, better, metric)
    why = (
        "tokenizers differ, so losses per token cannot be compared"
        if same_rows
        else "validation rows differ between configurations"
    )
    if not (same_rows or same_tokens) and is_loss:
        why = "tokenizers and validation rows differ between configurations"
    if same_rows and all(_bytes_known(run) for group in groups for run in group.runs):
        return Criterion(f"{objective.rpartition('/')[0]} nats/byte", "lower", metric, per_byte=True, why=why)
    if shared and metric:
        return Criterion(shared_name(metric), BETTER[metric], metric, over_rows=True, why=why)
    return Criterion(objective, better, metric, why=f"{why}, and they share no evaluated rows", comparable=False)


def _bytes_known(run: BoardRun) -> bool:
    return {"tokens", "bytes"} <= set(run.validation)


def _row_metric(name: str, shared: SharedRows | None) -> str | None:
    """The score over shared rows that is closest to a metric."""
    names = (name, *(("nats_per_byte",) if name == "loss" else ("loss", "nats_per_byte")), *TEXT_SCORES)
    return next((known for known in names if shared and shared.has(known)), None)


def _same(groups: Sequence[Group], of: Callable[[BoardRun], Any]) -> bool:
    """Whether the runs of all groups have the same set of values."""
    return len({frozenset(of(run) for run in group.runs) for group in groups}) <= 1


def _measured_rows(run: BoardRun) -> Any:
    """What identifies the rows that the objective was measured on."""
    data = run.data
    source = (data.get("sha256"), data.get("kept"), run.settings.get("data.split_seed", run.settings.get("data.seed")))
    if run.monitor.startswith("train/"):
        return (*map(repr, source), run.monitor)
    known = run.validation.get("identity")
    return known or (*map(repr, source), repr(data.get("split")))  # of an earlier version


def _same_tokens(groups: Sequence[Group], shared: SharedRows | None) -> bool:
    """Whether equal rows have the same supervised tokens in all runs."""
    runs = [run for group in groups for run in group.runs]
    if all(run.validation.get("tokens") for run in runs):
        counts: dict[Any, set[int]] = {}
        for run in runs:
            counts.setdefault(_measured_rows(run), set()).add(run.validation["tokens"])
        if any(len(found) > 1 for found in counts.values()):
            return False
        if len(counts) < len(runs):
            return True
    if shared:
        return shared.same_tokens
    return len({run.settings.get("model.path", run.settings.get("model.name")) for run in runs}) <= 1


def _set_values(group: Group, criterion: Criterion, shared: SharedRows | None) -> None:
    if not criterion.over_rows:
        found = [criterion.of_objective(run, run.objective) for run in group.runs]
    elif shared is None or group.number is None or criterion.metric is None:
        found = []
    else:
        found = shared.of_runs(group.number, criterion.metric)
        group.interval = shared.scores[group.number][criterion.metric]["tuned_interval"]
    group.values = [value for value in found if value is not None]


def _against(
    group: Group, best: Group, criterion: Criterion, shared: SharedRows | None, groups: int
) -> Difference | None:
    """Over seeds if both have several, else over the shared rows."""
    if not criterion.comparable:
        return None
    found = significance.compare_seeds(group.values, best.values, criterion.better)
    if found or not shared or criterion.metric is None or group.number is None or best.number is None:
        return found
    entry = shared.compare(group.number, best.number, criterion.metric, groups)
    return significance.described(entry, UNITS.get(criterion.metric, criterion.metric), len(shared))
