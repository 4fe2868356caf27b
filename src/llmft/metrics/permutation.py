"""Paired permutation test: p-values of the differences between two systems on the same examples."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
CHUNK = 1 << 18  # numbers drawn at once, so that memory does not grow with examples times resamples
MIN_SWAPS = 1000  # with fewer, no p-value survives a correction for 20 scores


def p_values(
    score: Callable[[Table], Table], tuned: Table, base: Table, *, swaps: int, seed: int
) -> list[float | None]:
    """Two-sided p-values by swapping the two systems' answers to each example at random.

    Approximate randomization (Noreen 1989, "Computer-intensive methods for testing hypotheses"; Riezler and Maxwell 2005,
    "On some pitfalls in automatic evaluation and significance testing for MT"): p = (1 + swaps with a difference at least as
    large) / (1 + swaps). It is valid for any number of examples, and for corpus scores too.

    Args:
        score: Sums of statistics, [n, statistics], to scores, [n, metrics].
        tuned: Statistics, [examples, statistics].
        base: Of the other system, same shape.
        swaps: Number of random assignments; at least ``MIN_SWAPS`` are drawn.
        seed: Of the assignments.

    Returns:
        One for each metric; None if it is undefined for the examples, or for one assignment in twenty.
    """
    random, swaps = np.random.default_rng(seed), max(swaps, MIN_SWAPS)
    total, apart = tuned.sum(0) + base.sum(0), tuned - base
    observed = np.abs(_difference(score, tuned.sum(0)[None], total))[0]
    at_least = np.zeros(len(observed), dtype=int)
    defined = np.zeros(len(observed), dtype=int)
    for number in chunks_of(swaps, len(tuned)):
        kept = random.integers(2, size=(number, len(tuned))).astype(np.float64)
        drawn = np.abs(_difference(score, base.sum(0) + kept @ apart, total))
        at_least += (drawn >= observed * (1 - 1e-9)).sum(0)  # sums in another order differ in the last digits
        defined += (~np.isnan(drawn)).sum(0)
    undefined = np.isnan(observed) | (defined < 0.95 * swaps)
    return [None if undefined[i] else float((1 + at_least[i]) / (1 + defined[i])) for i in range(len(observed))]


def chunks_of(draws: int, rows: int) -> Iterator[int]:
    """The number of resamples or swaps to draw at once: chunks of at most ``CHUNK`` rows together, or a single one."""
    at_once = max(1, CHUNK // max(rows, 1))
    for start in range(0, draws, at_once):
        yield min(at_once, draws - start)


def _difference(score: Callable[[Table], Table], sums: Table, total: Table) -> Table:
    return score(sums) - score(total - sums)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values: the chance of any false finding among all stays at 5 % if those of at most 0.05 are reported.

    Holm 1979, "A simple sequentially rejective multiple test procedure"; valid however the scores depend on each other.
    """
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()
