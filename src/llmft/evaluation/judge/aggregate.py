"""Aggregate judge requests to row scores, counts, and an entry next to the other metrics."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmft.evaluation.judge.requests import Request
from llmft.metrics import bootstrap
from llmft.metrics.builtin import judge_metric


def request_counts(requests: Sequence[Request]) -> dict[str, Any]:
    """Number of requests, failed ones, valid replies and truncated texts, and the ten most frequent reasons for no result."""
    reasons = Counter(request.reason for request in requests if request.result is None)
    return {
        "asked": len(requests),
        "valid": sum(request.result is not None for request in requests),
        "failed": sum(not request.finished for request in requests),
        "cut": sum(request.cut for request in requests),
        "reasons": dict(reasons.most_common(10)),
    }


def mean_scores(requests: Sequence[Request]) -> dict[str, dict[int, float]]:
    """Mean of the valid scores over judges and seeds: by system (``tuned``, ``base``), then by row."""
    lists: dict[str, dict[int, list[float]]] = {"tuned": {}, "base": {}}
    for request in requests:
        if isinstance(request.result, int):
            lists[request.which].setdefault(request.row, []).append(request.result)
    return {which: {row: float(np.mean(of)) for row, of in rows.items()} for which, rows in lists.items()}


def pairwise_scores(requests: Sequence[Request]) -> dict[str, dict[int, float]]:
    """Pairwise scores by system and row: 100 for a win in both orders, 50 for a tie or if the orders disagree.

    A pair with an invalid reply in either order is skipped. Means are over judges and seeds.
    """
    wins: dict[tuple[int, str, int], dict[str, float]] = {}
    for request in requests:
        first = {"A": 1.0, "B": -1.0, "TIE": 0.0}.get(str(request.result))
        if first is not None:
            orders = wins.setdefault((request.row, request.model, request.seed), {})
            orders[request.which] = first if request.which == "tuned" else -first
    lists: dict[int, list[float]] = {}
    for (row, _, _), orders in wins.items():
        if len(orders) == 2:
            agree = orders["tuned"] == orders["base"]
            lists.setdefault(row, []).append(orders["tuned"] if agree else 0.0)
    tuned = {row: 50 + 50 * float(np.mean(of)) for row, of in lists.items()}
    return {"tuned": tuned, "base": {row: 100 - value for row, value in tuned.items()}}


def outcome_counts(values: dict[str, dict[int, float]], mode: str, rows: int) -> dict[str, Any]:
    """Number of rows with a valid score; in pairwise mode also wins and ties."""
    counts = {"n": rows, "n_valid": len(values["tuned"])}
    if mode == "score":
        return counts | ({"n_valid_base": len(values["base"])} if values["base"] else {})
    tuned = values["tuned"].values()
    return counts | {
        "tuned_wins": sum(v > 50 for v in tuned),
        "base_wins": sum(v < 50 for v in tuned),
        "ties": sum(v == 50 for v in tuned),
    }


def score_entry(values: dict[str, dict[int, float]], rows: int, resamples: int, seed: int) -> dict[str, Any]:
    """Mean score of each system over its valid rows, and their difference over rows that are valid for both.

    Args:
        values: Scores by system and row.
        rows: Number of all rows.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        An entry as of ``bootstrap.compare``, with ``rows`` and ``of``.
    """

    def found(tuned: dict[int, float], base: dict[int, float] | None) -> dict[str, Any]:
        tables = [
            np.array([[value, 1.0] for value in v.values()]).reshape(-1, 2) for v in (tuned, base) if v is not None
        ]
        both = tables[1] if base is not None else None
        return bootstrap.compare([judge_metric()], tables[0], both, resamples=resamples, seed=seed)["judge"]

    entry = {**found(values["tuned"], None), "rows": len(values["tuned"]), "of": rows}
    if entry["tuned"] is None:
        entry["reason"] = judge_metric().undefined
    if not values["base"]:
        return entry
    shared = sorted(values["tuned"].keys() & values["base"].keys())
    pair = found(*({row: values[which][row] for row in shared} for which in ("tuned", "base")))
    base = found(values["base"], None)
    entry |= {"base": base["tuned"], "base_interval": base["tuned_interval"]}
    return entry | {name: pair[name] for name in ("difference", "difference_interval", "verdict", "p")}
