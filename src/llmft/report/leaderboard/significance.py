"""Test whether the difference between two groups of runs is significant: over seeds (Welch), or over rows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llmft.metrics import bootstrap
from llmft.metrics.permutation import holm

ALPHA = 0.05


class Difference(NamedTuple):
    """A group against another.

    Attributes:
        verdict: ``better``, ``worse`` or ``no difference seen``.
        text: The difference with its interval, and over what.
        p: Its p-value; None if unknown.
    """

    verdict: str
    text: str
    p: float | None


def compare_seeds(ours: Sequence[float], best: Sequence[float], better: str) -> Difference | None:
    """Welch's t-test of the objectives of two groups of seeds, two-sided at 5 %.

    Args:
        ours: The objective for each seed.
        best: The objective for each seed of the best group.
        better: ``lower`` or ``higher``.

    Returns:
        ``ours`` against ``best``; None if a group has fewer than two seeds, or an objective is NaN or infinite.
    """
    if min(len(ours), len(best)) < 2 or not np.isfinite([*ours, *best]).all():
        return None
    parts = [np.var(group, ddof=1) / len(group) for group in (ours, best)]
    difference, error = float(np.mean(ours) - np.mean(best)), math.sqrt(sum(parts))
    half, p = 0.0, 1.0 if difference == 0 else 0.0
    if error:
        freedom = sum(parts) ** 2 / sum(p**2 / (len(g) - 1) for p, g in zip(parts, (ours, best), strict=True))
        half = student_quantile(float(freedom)) * error
        p = student_p(difference / error, float(freedom))
    low, high = difference - half, difference + half
    return Difference(
        str(bootstrap.verdict((low, high), better)), f"{difference:+.4g} ({low:+.4g} to {high:+.4g}), seeds", p
    )


def student_p(t: float, freedom: float) -> float:
    """Two-sided p-value of Student's t, by integration of its density over the angle ``atan(t / sqrt(freedom))``."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    angles = np.linspace(math.atan(abs(t) / math.sqrt(freedom)), math.pi / 2, 20_001)
    return float(min(1.0, 2 * scale * np.trapezoid(np.maximum(np.cos(angles), 0) ** (freedom - 1), angles)))


def student_quantile(freedom: float) -> float:
    """The ``t`` whose two-sided p-value is 5 %, by the same integral; the degrees of freedom need be no whole number."""
    angles = np.linspace(0, math.pi / 2, 20_001)
    density = np.maximum(np.cos(angles), 0) ** (freedom - 1)
    inside = np.cumsum(density) - (density + density[0]) / 2
    return math.sqrt(freedom) * math.tan(np.interp(1 - ALPHA, inside / inside[-1], angles))


def corrected(found: Sequence[Difference | None]) -> list[Difference | None]:
    """Differences of several groups from one, corrected for their number (Holm).

    What is ``worse`` by itself, but has a corrected p-value above 5 %, becomes ``no difference seen``, and says so.
    """
    known = [d.p for d in found if d is not None and d.p is not None]
    adjusted = iter(holm(known))
    return [d if d is None or d.p is None else _at_level(d, next(adjusted), len(known)) for d in found]


def _at_level(difference: Difference, adjusted: float, comparisons: int) -> Difference:
    if difference.verdict not in ("better", "worse") or adjusted <= ALPHA:
        return difference
    text = f"{difference.text}; {difference.verdict} only without correction for {comparisons} comparisons"
    return Difference("no difference seen", text, difference.p)


def described(entry: Mapping[str, Any], metric: str, rows: int) -> Difference | None:
    """An entry of ``bootstrap.compare``; None if it has no interval."""
    if entry["verdict"] is None:
        return None
    low, high = entry["difference_interval"]
    text = f"{entry['difference']:+.4g} ({low:+.4g} to {high:+.4g}), {metric} over {rows} shared rows"
    return Difference(entry["verdict"], text, entry["p"])
