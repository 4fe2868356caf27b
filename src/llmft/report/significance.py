"""Test whether the difference between two groups of runs is significant: over seeds, or over test rows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmft.metrics import bootstrap
from llmft.metrics.builtin import builtin_metrics
from llmft.metrics.metric import ScoredAnswer

# Two-sided 95 % quantiles of Student's t for 1, 2, ..., 30 degrees of freedom; beyond that the normal distribution's.
T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def compare_seeds(ours: Sequence[float], best: Sequence[float], better: str) -> tuple[str, str] | None:
    """Welch's t-test of the objectives of two groups of seeds, two-sided at 5 %.

    Args:
        ours: The objective for each seed.
        best: The objective for each seed of the best group.
        better: ``lower`` or ``higher``.

    Returns:
        The verdict on ``ours``, and the difference with its interval; None if a group has fewer than two seeds, or an objective
        is NaN or infinite.
    """
    if min(len(ours), len(best)) < 2 or not np.isfinite([*ours, *best]).all():
        return None
    parts = [np.var(group, ddof=1) / len(group) for group in (ours, best)]
    difference, error = float(np.mean(ours) - np.mean(best)), math.sqrt(sum(parts))
    if error:
        freedom = sum(parts) ** 2 / sum(p**2 / (len(g) - 1) for p, g in zip(parts, (ours, best), strict=True))
        half = (T95[max(1, int(freedom + 1e-9)) - 1] if freedom < 31 else 1.96) * error
    else:
        half = 0.0
    low, high = difference - half, difference + half
    return str(bootstrap.verdict((low, high), better)), f"{difference:+.4g} ({low:+.4g} to {high:+.4g}), seeds"


def compare_rows(ours: Sequence[Mapping[str, Any]], best: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Paired bootstrap of the test loss of two runs over their shared test rows (chrF if a loss is missing).

    Returns:
        The verdict on ``ours``, and the difference with its interval; None if they share too few rows.
    """
    pairs = _shared(ours, best)
    with_loss = all(isinstance(row.get("nats"), int | float) for pair in pairs for row in pair)
    metric = next(m for m in builtin_metrics() if m.name == ("loss" if with_loss else "chrf"))
    tables = [np.array([metric.row(_answered(pair[side])) for pair in pairs], dtype=float) for side in (0, 1)]
    if len(pairs) < bootstrap.MIN_ROWS:
        return None
    entry = bootstrap.compare([metric], tables[0], tables[1], resamples=1000, seed=0)[metric.name]
    if entry["verdict"] is None:
        return None
    low, high = entry["difference_interval"]
    numbers = f"{entry['difference']:+.4g} ({low:+.4g} to {high:+.4g})"
    return entry["verdict"], f"{numbers}, test {metric.name} over {len(pairs)} rows"


def _shared(ours: Sequence[Mapping[str, Any]], best: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
    others = {(row.get("place"), row.get("reference")): row for row in best}
    keyed = [((row.get("place"), row.get("reference")), row) for row in ours]
    return [(row, others[key]) for key, row in keyed if key in others]


def _answered(row: Mapping[str, Any]) -> ScoredAnswer:
    answer, reference = str(row.get("answer") or ""), str(row.get("reference") or "")
    return ScoredAnswer(answer, reference, None, row.get("nats"), int(row.get("supervised") or 0))
