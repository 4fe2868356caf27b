"""Finished requests -> the scores of rows, counts, and an entry beside the other metrics."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmft.evaluation.judge.requests import Request
from llmft.metrics import bootstrap
from llmft.metrics.builtin import judged


def counts(asked: Sequence[Request]) -> dict[str, Any]:
    """Requests, valid ones, those with a text cut, and why there is no result, most frequent first."""
    reasons = Counter(request.reason for request in asked if request.result is None)
    return {
        "asked": len(asked),
        "valid": sum(request.result is not None for request in asked),
        "cut": sum(request.cut for request in asked),
        "reasons": dict(reasons.most_common(10)),
    }


def mean_values(asked: Sequence[Request]) -> dict[str, dict[int, float]]:
    """Mean over judges and seeds of the valid scores of each row: by ``tuned`` and ``base``, by row."""
    lists: dict[str, dict[int, list[float]]] = {"tuned": {}, "base": {}}
    for request in asked:
        if isinstance(request.result, int):
            lists[request.which].setdefault(request.row, []).append(request.result)
    return {which: {row: float(np.mean(of)) for row, of in rows.items()} for which, rows in lists.items()}


def pair_values(asked: Sequence[Request]) -> dict[str, dict[int, float]]:
    """100 for the one that wins in both orders, 50 each where the orders disagree or tie; rows with an invalid reply out."""
    wins: dict[tuple[int, str, int], dict[str, float]] = {}
    for request in asked:
        first = {"A": 1.0, "B": -1.0, "TIE": 0.0}.get(str(request.result))
        if first is not None:
            place = wins.setdefault((request.row, request.model, request.seed), {})
            place[request.which] = first if request.which == "tuned" else -first
    lists: dict[int, list[float]] = {}
    for (row, _, _), orders in wins.items():
        if len(orders) == 2:
            same = orders["tuned"] == orders["base"]
            lists.setdefault(row, []).append(orders["tuned"] if same else 0.0)
    tuned = {row: 50 + 50 * float(np.mean(of)) for row, of in lists.items()}
    return {"tuned": tuned, "base": {row: 100 - value for row, value in tuned.items()}}


def pairs(values: dict[str, dict[int, float]], mode: str, rows: int) -> dict[str, Any]:
    """How many of the rows have a valid score; of pairs, who won."""
    counts = {"n": rows, "n_valid": len(values["tuned"])}
    if mode == "score":
        return counts | ({"n_valid_base": len(values["base"])} if values["base"] else {})
    tuned = values["tuned"].values()
    return counts | {
        "tuned_wins": sum(v > 50 for v in tuned),
        "base_wins": sum(v < 50 for v in tuned),
        "ties": sum(v == 50 for v in tuned),
    }


def entry(values: dict[str, dict[int, float]], rows: int, resamples: int, seed: int) -> dict[str, Any]:
    """Means over each system's valid rows; their difference over the rows that are valid for both."""

    def found(tuned: dict[int, float], base: dict[int, float] | None) -> dict[str, Any]:
        tables = [
            np.array([[value, 1.0] for value in v.values()]).reshape(-1, 2) for v in (tuned, base) if v is not None
        ]
        both = tables[1] if base is not None else None
        return bootstrap.compare([judged()], tables[0], both, resamples=resamples, seed=seed)["judge"]

    entry = {**found(values["tuned"], None), "rows": len(values["tuned"]), "of": rows}
    if entry["tuned"] is None:
        entry["reason"] = judged().undefined
    if not values["base"]:
        return entry
    shared = sorted(values["tuned"].keys() & values["base"].keys())
    pair = found(*({row: values[which][row] for row in shared} for which in ("tuned", "base")))
    alone = found(values["base"], None)
    entry |= {"base": alone["tuned"], "base_interval": alone["tuned_interval"]}
    return entry | {name: pair[name] for name in ("difference", "difference_interval", "verdict")}
