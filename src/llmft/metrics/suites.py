"""Scores of external suites: what lm-evaluation-harness found for base and tuned model, as entries of the table of scores."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from llmft.metrics import bootstrap
from llmft.metrics.metric import Metric, ratio

MEAN = Metric("mean", 2, lambda _: (0, 0), ratio, "there are no rows", "the mean over rows")
NORMAL = 1.96  # standard errors on either side of a 95 % interval
Scores = dict[str, dict[str, dict[str, Any]]]


def suite_scores(
    tuned: Mapping[str, Any], base: Mapping[str, Any] | None, *, version: str, resamples: int, seed: int
) -> Scores:
    """The scores of each task, tuned beside base.

    A score that is the mean of a value per row gets the paired bootstrap of the other scores (``bootstrap.compare``). Others,
    such as perplexity, get intervals of 1.96 standard errors of the harness, and their difference has none.

    Args:
        tuned: What ``lm_eval.evaluator.evaluate`` returns, with the samples.
        base: The same of the base model, or None.
        version: Of lm-evaluation-harness.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        ``evaluation["suites"]``: for each task and metric ``tuned``, ``tuned_stderr`` (the harness's; None if it has none),
        and the keys of ``bootstrap.compare``. The metric's name is followed by its filter, unless that is ``none``. Tasks of a
        group that has a score of its own have ``part_of``.
    """
    systems = {"tuned": tuned} | ({} if base is None else {"base": base})
    groups = _groups(tuned)
    found: Scores = {}
    for task, values in tuned["results"].items():
        part_of = {"part_of": groups[task]} if task in groups else {}
        found[task] = {
            name: _entry(systems, task, key, version, resamples, seed) | part_of for key, name in _metrics(values)
        }
    return found


def all_scores(evaluation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rows of the table of scores: those of the test rows, then ``task: metric`` of external suites.

    Args:
        evaluation: The content of ``evaluation.json``.
    """
    suites = {
        f"{task}: {metric}": entry
        for task, metrics in (evaluation.get("suites") or {}).items()
        for metric, entry in metrics.items()
        if not entry.get("part_of")
    }
    return {**evaluation["scores"], **suites}


def _metrics(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys such as ``acc,none`` of a task's scores, with the name of the metric; standard errors and texts are left out."""
    for key, value in values.items():
        metric, comma, kind = key.partition(",")
        if comma and not metric.endswith("_stderr") and _number(value) is not None:
            yield key, metric if kind == "none" else f"{metric} ({kind})"


def _entry(
    systems: Mapping[str, Mapping[str, Any]], task: str, key: str, version: str, resamples: int, seed: int
) -> dict[str, Any]:
    metric, _, kind = key.partition(",")
    higher = (systems["tuned"].get("higher_is_better", {}).get(task) or {}).get(metric)
    entry: dict[str, Any] = {"better": "" if higher is None else "higher" if higher else "lower"}
    entry["definition"] = _definition(systems["tuned"], task, version)
    for name, found in systems.items():
        entry[name] = _number(found["results"][task].get(key))
        entry[f"{name}_stderr"] = _number(found["results"][task].get(f"{metric}_stderr,{kind}"))
    rows = {name: _rows(found, task, metric, kind, entry[name]) for name, found in systems.items()}
    tables = {name: np.array([[value, 1.0] for value in of.values()]) for name, of in rows.items() if of}
    if len(tables) < len(systems) or len({tuple(of) for of in rows.values() if of}) > 1:
        return entry | _by_standard_error(entry)
    compared = bootstrap.compare([MEAN], tables["tuned"], tables.get("base"), resamples=resamples, seed=seed)["mean"]
    kept = {name: value for name, value in compared.items() if name not in ("better", "definition", *systems)}
    if "verdict" in kept:
        kept["verdict"] = bootstrap.verdict(kept["difference_interval"], entry["better"])
    return entry | kept


def _by_standard_error(entry: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("tuned", "base") if "base" in entry else ("tuned",):
        value, error = entry[name], entry[f"{name}_stderr"]
        found[f"{name}_interval"] = None
        if value is not None and error is not None:
            found[f"{name}_interval"] = [value - NORMAL * error, value + NORMAL * error]
    if entry.get("base") is not None and entry["tuned"] is not None:
        found |= {"difference": entry["tuned"] - entry["base"], "difference_interval": None, "verdict": None}
        found["reason"] = "no mean over rows that both models have, so the difference has no interval"
    return found


def _rows(found: Mapping[str, Any], task: str, metric: str, kind: str, score: float | None) -> dict[Any, float] | None:
    """The value of each row by its id; None if their mean is not the score."""
    values = {
        sample["doc_id"]: _number(sample[metric])
        for sample in (found.get("samples") or {}).get(task, ())
        if sample.get("filter", kind) == kind and metric in sample
    }
    numbers = {row: value for row, value in sorted(values.items()) if value is not None}
    if score is None or not numbers or len(numbers) < len(values):
        return None
    mean = sum(numbers.values()) / len(numbers)
    return numbers if abs(mean - score) <= 1e-6 * max(1.0, abs(score)) else None


def _definition(found: Mapping[str, Any], task: str, version: str) -> str:
    rows = (found.get("n-samples", {}).get(task) or {}).get("effective")
    shots = found.get("n-shot", {}).get(task)
    parts = [
        f"lm-evaluation-harness {version}",
        f"{shots}-shot" if shots is not None else "",
        f"{rows} rows" if rows else "",
    ]
    return ", ".join(part for part in parts if part)


def _groups(found: Mapping[str, Any]) -> dict[str, str]:
    """The group of each task whose group has a score of its own."""
    parts: dict[str, str] = {}
    scored, members = found.get("groups") or {}, found.get("group_subtasks") or {}
    for group in scored:
        waiting = list(members.get(group, ()))
        while waiting:
            name = waiting.pop()
            if name not in parts:
                parts[name] = group
                waiting += members.get(name, ())
    return parts


def _number(value: Any) -> float | None:
    """A number as a float, also numpy's and booleans; None for anything else, and for NaN and infinity."""
    if isinstance(value, str) or not hasattr(value, "__float__"):
        return None
    found = float(value)
    return found if np.isfinite(found) else None
