"""Score predictions of tuned and base model with intervals, and compare the two."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmft.config.schema.evaluation import Evaluate
from llmft.metrics import bootstrap
from llmft.metrics.builtin import builtin_metrics
from llmft.metrics.metric import Metric, ScoredAnswer
from llmft.metrics.predictions import Prediction, row_scores
from llmft.metrics.verdict.power import ROWS, rows_needed


def chosen_metrics(settings: Evaluate, own: Sequence[Any] = ()) -> list[Metric]:
    """The metrics of the ``evaluate`` keys, and those of a data set.

    Args:
        settings: The ``evaluate`` keys.
        own: ``data.metrics``: ``keywords``, the name of a built-in metric, or a Metric.
    """
    keywords = "keywords" in own if settings.keywords == "auto" else settings.keywords
    builtin = builtin_metrics(bleu_tokenizer=settings.bleu_tokenizer, keywords=keywords)
    return [*builtin, *(metric for metric in own if isinstance(metric, Metric))]


def score(predictions: Sequence[Prediction], chosen: Sequence[Metric], *, resamples: int, seed: int) -> dict[str, Any]:
    """Score the tuned model, and the base model if every prediction has its answer; sets the scores of each prediction.

    Returns:
        See ``bootstrap.compare``.
    """
    with_base = bool(predictions) and all(p.base_answer is not None for p in predictions)
    for prediction in predictions:
        prediction.scores = row_scores(chosen, prediction.tuned)
        prediction.base_scores = row_scores(chosen, prediction.base) if with_base else {}
    tuned = metric_statistics(chosen, [p.tuned for p in predictions])
    base = metric_statistics(chosen, [p.base for p in predictions]) if with_base else None
    return bootstrap.compare(chosen, tuned, base, resamples=resamples, seed=seed)


def clean_scores(
    predictions: Sequence[Prediction], chosen: Sequence[Metric], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Score the rows whose prompt is not in train apart.

    Returns:
        ``rows`` without leak, ``in_train`` and ``unknown`` ones, and the ``scores`` of the first; None if these are all rows, or
        there are none.
    """
    clean = [prediction for prediction in predictions if not prediction.in_train]
    leaked, unknown = len(predictions) - len(clean), sum(p.in_train is None for p in predictions)
    apart = score(clean, chosen, resamples=resamples, seed=seed) if leaked and clean else None
    return {"rows": len(clean), "in_train": leaked, "unknown": unknown, "scores": apart}


def rows_for_power(predictions: Sequence[Prediction], metric: Metric, seed: int) -> int | None:
    """``power.rows_needed`` for the difference of tuned and base model, from at most ``power.ROWS`` rows; None without a base."""
    if not predictions or any(p.base_answer is None for p in predictions):
        return None
    order = np.random.default_rng(seed).permutation(len(predictions))[:ROWS]
    some = [predictions[i] for i in order]
    tables = [metric_statistics([metric], [getattr(p, which) for p in some]) for which in ("tuned", "base")]
    return rows_needed(metric, *tables, seed=seed)


def metric_statistics(chosen: Sequence[Metric], rows: Sequence[ScoredAnswer]) -> bootstrap.Table:
    """Statistics of all examples: [examples, statistics], float64."""
    width = sum(metric.width for metric in chosen)
    found = [[float(n) for metric in chosen for n in metric.row(row)] for row in rows]
    return np.array(found, dtype=np.float64).reshape(len(rows), width)


def corpus_scores(chosen: Sequence[Metric], rows: Sequence[ScoredAnswer]) -> dict[str, float | None]:
    """Corpus scores without intervals."""
    found = bootstrap.compare(chosen, metric_statistics(chosen, rows), None, resamples=0, seed=0)
    return {name: entry["tuned"] for name, entry in found.items()}


def seed_spread(chosen: Sequence[Metric], runs: Mapping[int, Sequence[ScoredAnswer]]) -> dict[str, dict[str, Any]]:
    """Each score over several seeds: mean, standard deviation (ddof = 1) and values; None if undefined for a seed."""
    scores = [corpus_scores(chosen, rows) for rows in runs.values()]
    found = {}
    for name in scores[0]:
        values = [value for of_seed in scores if (value := of_seed[name]) is not None]
        complete = len(values) == len(runs)
        found[name] = {
            "mean": float(np.mean(values)) if complete else None,
            "sd": float(np.std(values, ddof=1)) if complete and len(values) > 1 else None,
            "values": [of_seed[name] for of_seed in scores],
        }
    return found
