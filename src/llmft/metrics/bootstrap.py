"""Percentile bootstrap: corpus scores with 95 % confidence intervals, and a paired test of their differences."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from llmft.metrics.metric import Metric
from llmft.metrics.permutation import Table, chunks_of, p_values

PERCENTILES = (2.5, 97.5)
# With 5 examples one system wins all of them by chance in 1 of 16 cases, more often than a 95 % interval allows.
MIN_ROWS = 6


def compare(
    metrics: Sequence[Metric], tuned: Table, base: Table | None, *, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Score one system, or two on the same examples, with percentile bootstrap intervals over the examples.

    Both systems are scored on the same resamples (paired bootstrap; Koehn 2004, "Statistical significance tests for machine
    translation evaluation"), so that the difficulty of an example cancels out in the difference.

    Args:
        metrics: In the order of the tables' columns.
        tuned: Statistics, [examples, statistics].
        base: Statistics of the other system, same shape, or None.
        resamples: Number of bootstrap resamples; with 1,000 the ends of an interval vary by a few per cent of its width. 0
            for no intervals.
        seed: Seed of the resampling. Examples are sorted first, so the result does not depend on their order.

    Returns:
        For each metric ``tuned``, ``tuned_interval``, and with a base ``base``, ``base_interval``, ``difference``,
        ``difference_interval``, ``verdict`` and ``p`` (``permutation.p_values``, not corrected). Undefined values are None,
        with a ``reason``.
    """
    systems = {"tuned": tuned} | ({} if base is None else {"base": base})
    order = np.lexsort(np.hstack(list(systems.values())).T[::-1]) if len(tuned) else []
    systems = {name: table[order] for name, table in systems.items()}
    scores = {name: _scores(metrics, table.sum(0)[None]) for name, table in systems.items()}
    broken = {name: _not_finite(metrics, table) for name, table in systems.items()}
    resampled = {name: np.full((1, len(metrics)), np.nan) for name in systems}
    p: Sequence[float | None] = [None] * len(metrics)
    if len(tuned) >= MIN_ROWS and resamples:
        with np.errstate(invalid="ignore"):  # a row that is not finite; such a score is undefined
            chunks = [
                [_scores(metrics, w @ t) for t in systems.values()] for w in _weights(len(tuned), resamples, seed)
            ]
            resampled = {name: np.concatenate([chunk[i] for chunk in chunks]) for i, name in enumerate(systems)}
            if base is not None:
                score = partial(_scores, metrics)
                p = p_values(score, systems["tuned"], systems["base"], swaps=resamples, seed=seed)
    return {
        metric.name: _entry(
            metric,
            {n: scores[n][0, i] for n in systems},
            {n: resampled[n][:, i] for n in systems},
            rows=len(tuned),
            broken={n: broken[n][i] for n in systems},
            p=p[i],
        )
        for i, metric in enumerate(metrics)
    }


def _weights(rows: int, resamples: int, seed: int) -> Iterator[Table]:
    """Number of times each example was drawn, [resamples, examples], in chunks of resamples."""
    random = np.random.default_rng(seed)
    for number in chunks_of(resamples, rows):
        picked = random.integers(rows, size=(number, rows))
        yield np.stack([np.bincount(draw, minlength=rows) for draw in picked]).astype(np.float64)


def _scores(metrics: Sequence[Metric], sums: Table) -> Table:
    """Sums of statistics, [resamples, statistics], to scores, [resamples, metrics]; NaN if undefined."""
    parts = zip(metrics, columns_of(metrics, sums), strict=True)
    columns = [[_score_or_nan(metric.score, row) for row in part.tolist()] for metric, part in parts]
    return np.array(columns, dtype=np.float64).T.reshape(len(sums), len(metrics))


def columns_of(metrics: Sequence[Metric], table: Table) -> list[Table]:
    """The columns of each metric."""
    ends = np.cumsum([metric.width for metric in metrics])
    return [table[:, end - metric.width : end] for metric, end in zip(metrics, ends, strict=True)]


def _not_finite(metrics: Sequence[Metric], table: Table) -> list[int]:
    """Number of examples, by metric, with a statistic that is NaN or infinite (the loss of a broken model)."""
    return [int((~np.isfinite(part)).any(axis=1).sum()) for part in columns_of(metrics, table)]


def _score_or_nan(score: Callable[[Sequence[float]], float | None], sums: Sequence[float]) -> float:
    found = score(sums)
    return float("nan") if found is None or not np.isfinite(found) else found


def _entry(
    metric: Metric,
    values: dict[str, Any],
    resampled: dict[str, Table],
    *,
    rows: int,
    broken: dict[str, int],
    p: float | None,
) -> dict[str, Any]:
    entry: dict[str, Any] = {"better": metric.better, "definition": metric.definition}
    for name in values:
        entry[name] = _none_if_nan(values[name])
        entry[f"{name}_interval"] = _interval(resampled[name]) if entry[name] is not None else None
    if undefined := [name for name in values if entry[name] is None]:
        reason = metric.undefined if rows else "there are no rows"
        if most := max(broken.values()):
            reason = f"it is NaN or infinite in {most} of {rows} rows"
        entry["reason"] = f"{' and '.join(undefined)}: {reason}"
    if "base" in values:
        difference = _none_if_nan(values["tuned"] - values["base"])
        interval = None if difference is None else _interval(resampled["tuned"] - resampled["base"])
        entry |= {
            "difference": difference,
            "difference_interval": interval,
            "verdict": verdict(interval, metric.better),
            "p": p,
        }
        if difference is not None and interval is None:
            entry["reason"] = _no_interval(rows)
    return entry


def _no_interval(rows: int) -> str:
    if rows < MIN_ROWS:
        return f"{rows} row{'s' * (rows != 1)}: too few for an interval ({MIN_ROWS} at least)"
    return "no interval: the score is undefined in more than 5 % of the resamples"


def verdict(interval: Sequence[float] | None, better: str) -> str | None:
    """Classify the interval of a difference (tuned minus base).

    Returns:
        ``no difference seen`` if the interval includes 0, else ``better`` or ``worse`` (``higher`` or ``lower`` for a metric
        without a better direction); None without an interval, or if an end is NaN.
    """
    if interval is None or np.isnan(interval).any():
        return None
    low, high = interval
    if low <= 0 <= high:
        return "no difference seen"
    up = low > 0
    if not better:
        return "higher" if up else "lower"
    return "better" if up == (better == "higher") else "worse"


def _interval(draws: Table) -> list[float] | None:
    """2.5th and 97.5th percentile of the resamples; None if more than 5 % of them are undefined."""
    defined = draws[~np.isnan(draws)]
    if len(defined) < max(0.95 * len(draws), 2):
        return None
    return [float(end) for end in np.percentile(defined, PERCENTILES)]


def _none_if_nan(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
