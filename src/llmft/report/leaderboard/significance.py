"""Test whether the difference between two groups of runs is significant: over seeds (Welch), or over rows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmft.metrics import bootstrap

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


def described(entry: Mapping[str, Any], metric: str, rows: int) -> tuple[str, str] | None:
    """An entry of ``bootstrap.compare`` as the verdict, and the difference with its interval; None if there is no interval."""
    if entry["verdict"] is None:
        return None
    low, high = entry["difference_interval"]
    return entry["verdict"], f"{entry['difference']:+.4g} ({low:+.4g} to {high:+.4g}), {metric} over {rows} shared rows"
