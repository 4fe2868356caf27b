"""Score predictions of tuned and base model with intervals, and compare the two."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmft.config.schema.evaluation import Evaluate
from llmft.metrics import bootstrap
from llmft.metrics.builtin import builtin_metrics
from llmft.metrics.metric import Metric, ScoredAnswer
from llmft.metrics.predictions import Prediction
from llmft.metrics.verdict.power import ROWS, rows_needed

# Metrics that are only meaningful over a corpus, or (judge) computed elsewhere.
CORPUS_ONLY = ("bleu", "perplexity", "judge")


def chosen_metrics(settings: Evaluate, own: Sequence[Any] = ()) -> list[Metric]:
    """The metrics of the ``evaluate`` keys, and those of a data set.

    Args:
        settings: The ``evaluate`` keys.
        own: ``data.metrics``: ``keywords``, the name of a built-in metric, or a Metric.
    """
    keywords = "keywords" in own if settings.keywords == "auto" else settings.keywords
    builtin = builtin_metrics(bleu_tokenizer=settings.bleu_tokenizer, keywords=keywords)
    return [*builtin, *(metric for metric in own if isinstance(metric, Metric))]


class Tables(NamedTuple):
    """The statistics of predictions, [examples, statistics]; ``base`` is None unless each has an answer of the base model."""

    tuned: bootstrap.Table
    base: bootstrap.Table | None

    def rows(self, numbers: NDArray[np.int64]) -> "Tables":
        """Those of some of the predictions."""
        return Tables(self.tuned[numbers], None if self.base is None else self.base[numbers])


def tables_of(predictions: Sequence[Prediction], chosen: Sequence[Metric]) -> Tables:
    """Compute the statistics of the tuned model's answers, and of the base model's; sets the scores of each prediction."""
    with_base = bool(predictions) and all(p.base_answer is not None for p in predictions)
    tuned = metric_statistics(chosen, [p.tuned for p in predictions])
    base = metric_statistics(chosen, [p.base for p in predictions]) if with_base else None
    of_tuned = _row_scores(chosen, tuned)
    of_base = [{} for _ in predictions] if base is None else _row_scores(chosen, base)
    for prediction, scores, base_scores in zip(predictions, of_tuned, of_base, strict=True):
        prediction.scores, prediction.base_scores = scores, base_scores
    return Tables(tuned, base)


def _row_scores(chosen: Sequence[Metric], table: bootstrap.Table) -> list[dict[str, float | None]]:
    """The scores of each answer; None if a metric is undefined for it."""
    found: list[dict[str, float | None]] = [{} for _ in table]
    for metric, part in zip(chosen, bootstrap.columns_of(chosen, table), strict=True):
        if metric.name in CORPUS_ONLY:
            continue
        for scores, row in zip(found, part.tolist(), strict=True):
            value = metric.score(row)
            scores[metric.name] = None if value is None else round(value, 4)
    return found


def clean_scores(
    predictions: Sequence[Prediction], chosen: Sequence[Metric], tables: Tables, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Score the rows whose prompt is not in train apart.

    Returns:
        ``rows`` without leak, ``in_train`` and ``unknown`` ones, and the ``scores`` of the first; None if these are all rows, or
        there are none.
    """
    clean = [row for row, prediction in enumerate(predictions) if not prediction.in_train]
    leaked, unknown = len(predictions) - len(clean), sum(p.in_train is None for p in predictions)
    of_clean = tables.rows(np.array(clean, dtype=np.int64))
    apart = bootstrap.compare(chosen, *of_clean, resamples=resamples, seed=seed) if leaked and clean else None
    return {"rows": len(clean), "in_train": leaked, "unknown": unknown, "scores": apart}


def rows_for_power(chosen: Sequence[Metric], tables: Tables, name: str, seed: int) -> int | None:
    """``power.rows_needed`` for the difference in one score, from at most ``power.ROWS`` rows; None without a base."""
    if tables.base is None:
        return None
    some = tables.rows(np.random.default_rng(seed).permutation(len(tables.tuned))[:ROWS])
    number = [metric.name for metric in chosen].index(name)
    tuned, base = (bootstrap.columns_of(chosen, table)[number] for table in some if table is not None)
    return rows_needed(chosen[number], tuned, base, seed=seed)


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
