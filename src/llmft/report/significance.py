"""Two groups of runs -> whether what lies between them is larger than their noise."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmft.metrics import bootstrap
from llmft.metrics.builtin import metrics
from llmft.metrics.metric import ScoredAnswer

# Two-sided 95 % points of Student's t for 1, 2, ... degrees of freedom; beyond 30 the normal's.
T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def over_seeds(ours: Sequence[float], best: Sequence[float], better: str) -> tuple[str, str] | None:
    """Welch's t-test of two groups of seeds, two-sided at 5 %.

    Args:
        ours: The objective of each seed.
        best: Of the other group.
        better: ``lower`` or ``higher``.

    Returns:
        A verdict on ``ours`` and the numbers behind it; None where a group has less than two seeds.
    """
    if min(len(ours), len(best)) < 2:
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


def over_rows(ours: Sequence[Mapping[str, Any]], best: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Paired bootstrap of the test loss of two runs over the rows that both were asked (chrF where a loss is missing).

    Returns:
        A verdict on ``ours`` and the numbers behind it; None where they share too few rows.
    """
    pairs = _shared(ours, best)
    with_loss = all(isinstance(row.get("nats"), int | float) for pair in pairs for row in pair)
    metric = next(m for m in metrics() if m.name == ("loss" if with_loss else "chrf"))
    tables = [np.array([metric.row(_answered(pair[side])) for pair in pairs], dtype=float) for side in (0, 1)]
    if len(pairs) < bootstrap.FEWEST:
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
