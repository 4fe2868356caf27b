"""Rows of statistics -> scores with 95 % intervals, and what of a difference is luck."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmft.metrics.metric import Metric

Table = NDArray[np.float64]
COVERED = (2.5, 97.5)
# Among 5 rows one system is ahead in all of them by chance in 1 of 16 cases, which is more than an interval of 95 % allows.
FEWEST = 6
CHUNK = 1 << 18  # draws held at once, so that memory does not grow with rows times resamples


def compare(
    metrics: Sequence[Metric], tuned: Table, base: Table | None, *, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Every metric of one system, or of two on the same rows, with percentile bootstrap intervals over rows.

    Both systems are scored on the same resamples (a paired bootstrap; Koehn 2004), so what makes a row hard for both cancels out.

    Args:
        metrics: In the order of the tables' columns.
        tuned: [rows, statistics].
        base: The same of the other system, or None.
        resamples: How many; 1,000 move the ends of an interval by a few per cent of its width, 0 makes none.
        seed: Of the draws. Rows are sorted first, so that their order changes nothing.

    Returns:
        For each metric ``tuned``, ``tuned_interval``, and with a base ``base``, ``base_interval``, ``difference``,
        ``difference_interval`` and ``verdict``; None for what is not defined, with a ``reason``.
    """
    systems = {"tuned": tuned} | ({} if base is None else {"base": base})
    order = np.lexsort(np.hstack(list(systems.values())).T[::-1]) if len(tuned) else []
    systems = {name: table[order] for name, table in systems.items()}
    draws = {name: _scores(metrics, table.sum(0)[None]) for name, table in systems.items()}
    if len(tuned) >= FEWEST and resamples:
        drawn = [[_scores(metrics, w @ t) for t in systems.values()] for w in _weights(len(tuned), resamples, seed)]
        again = {name: np.concatenate([chunk[i] for chunk in drawn]) for i, name in enumerate(systems)}
    else:
        again = {name: np.full((1, len(metrics)), np.nan) for name in systems}
    return {
        metric.name: _entry(
            metric, {n: draws[n][0, i] for n in systems}, {n: again[n][:, i] for n in systems}, rows=len(tuned)
        )
        for i, metric in enumerate(metrics)
    }


def _weights(rows: int, resamples: int, seed: int) -> Iterator[Table]:
    """How often each row was drawn: [some resamples, rows], in chunks."""
    random = np.random.default_rng(seed)
    at_once = max(1, min(resamples, CHUNK // rows))
    for start in range(0, resamples, at_once):
        picked = random.integers(rows, size=(min(at_once, resamples - start), rows))
        yield np.stack([np.bincount(draw, minlength=rows) for draw in picked]).astype(np.float64)


def _scores(metrics: Sequence[Metric], sums: Table) -> Table:
    """[resamples, statistics] -> [resamples, metrics]; NaN where a score is not defined."""
    ends = np.cumsum([m.width for m in metrics])
    parts = [sums[:, end - m.width : end] for m, end in zip(metrics, ends, strict=True)]
    columns = [[_number(m.score, row) for row in part.tolist()] for m, part in zip(metrics, parts, strict=True)]
    return np.array(columns, dtype=np.float64).T.reshape(len(sums), len(metrics))


def _number(score: Callable[[Sequence[float]], float | None], sums: Sequence[float]) -> float:
    found = score(sums)
    return float("nan") if found is None or not np.isfinite(found) else found


def _entry(metric: Metric, values: dict[str, Any], again: dict[str, Table], *, rows: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"better": metric.better, "definition": metric.definition}
    for name in values:
        entry[name] = _none_if_nan(values[name])
        entry[f"{name}_interval"] = _interval(again[name]) if entry[name] is not None else None
    if undefined := [name for name in values if entry[name] is None]:
        entry["reason"] = f"{' and '.join(undefined)}: {metric.undefined if rows else 'there are no rows'}"
    if "base" in values:
        difference = _none_if_nan(values["tuned"] - values["base"])
        interval = None if difference is None else _interval(again["tuned"] - again["base"])
        entry |= {
            "difference": difference,
            "difference_interval": interval,
            "verdict": verdict(interval, metric.better),
        }
        if difference is not None and interval is None:
            entry["reason"] = f"{rows} row{'s' * (rows != 1)}: too few for an interval ({FEWEST} at least)"
    return entry


def verdict(interval: Sequence[float] | None, better: str) -> str | None:
    """What an interval of a difference (tuned less base) says, in words; None without an interval."""
    if interval is None:
        return None
    low, high = interval
    if low <= 0 <= high:
        return "no difference seen"
    up = low > 0
    if not better:
        return "higher" if up else "lower"
    return "better" if up == (better == "higher") else "worse"


def _interval(draws: Table) -> list[float] | None:
    """The middle 95 % of the resamples; None where more than one in twenty is not defined."""
    defined = draws[~np.isnan(draws)]
    if len(defined) < max(0.95 * len(draws), 2):
        return None
    return [float(end) for end in np.percentile(defined, COVERED)]


def _none_if_nan(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
