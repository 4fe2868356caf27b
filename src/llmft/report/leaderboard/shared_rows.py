"""Scores over the rows that all compared groups of runs share, computed again from ``predictions.jsonl``."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np

from llmft.metrics import bootstrap
from llmft.metrics.builtin import builtin_metrics, judge_metric, nats_per_byte
from llmft.metrics.metric import Metric, ScoredAnswer
from llmft.report.leaderboard.runs import BoardRun

SCORES = ("loss", "nats_per_byte", "f1", "bleu", "chrf", "rougeL", "keyword_f1", "judge")
RESAMPLES = 1000
Key = tuple[Any, ...]
Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class SharedRows:
    """The shared rows of some groups of runs, and their scores.

    A row that several runs of a group answered (seeds) has the mean of their statistics, so that each row counts once.

    Attributes:
        metrics: The scores that all groups have. ``loss``, in nats per token, is one of them only if every row has the same
            number of supervised tokens in every run, so within one tokenizer; else ``nats_per_byte``, if losses are of
            answers alone.
        keys: The shared rows.
        most: Number of rows of the group that has most.
        same_tokens: Whether every row has the same number of supervised tokens in every run.
        split: The split of the rows: ``test``, ``val`` or ``train``; ``evaluation`` if it differs between runs.
        statistics: For each group, for each of its runs, the statistics of the rows that it has: key to [statistics].
    """

    metrics: Sequence[Metric]
    keys: Sequence[Key]
    most: int
    same_tokens: bool
    split: str
    statistics: Sequence[Sequence[Mapping[Key, bootstrap.Table]]]

    def __len__(self) -> int:
        return len(self.keys)

    def has(self, metric: str) -> bool:
        """Whether all groups have this score."""
        return any(known.name == metric for known in self.metrics)

    @cached_property
    def tables(self) -> list[bootstrap.Table]:
        """Statistics of each group, [rows, statistics]."""
        return [self._pooled(runs) for runs in self.statistics]

    @cached_property
    def scores(self) -> list[dict[str, dict[str, Any]]]:
        """Score and 95 % bootstrap interval of each metric, for each group, as of ``bootstrap.compare``."""
        return [bootstrap.compare(self.metrics, table, None, resamples=RESAMPLES, seed=0) for table in self.tables]

    def of_runs(self, group: int, metric: str) -> list[float | None]:
        """The score of each run of a group, over those of the shared rows that it has."""
        return [entries[metric]["tuned"] for entries in self._run_scores[group]]

    @cached_property
    def _run_scores(self) -> list[list[dict[str, dict[str, Any]]]]:
        """The scores of each run of each group, without intervals."""
        tables = [[self._pooled([run]) for run in runs] for runs in self.statistics]
        return [[bootstrap.compare(self.metrics, table, None, resamples=0, seed=0) for table in of] for of in tables]

    def compare(self, group: int, best: int, metric: str, groups: int = 2) -> dict[str, Any]:
        """Paired bootstrap of two groups on one score, as of ``bootstrap.compare``: ``tuned`` is ``group``.

        With many ``groups`` there are more resamples, or no p-value could be small enough after correction for their number.
        """
        place = next(i for i, known in enumerate(self.metrics) if known.name == metric)
        start = sum(known.width for known in self.metrics[:place])
        chosen = slice(start, start + self.metrics[place].width)
        tables = self.tables[group][:, chosen], self.tables[best][:, chosen]
        return bootstrap.compare([self.metrics[place]], *tables, resamples=max(RESAMPLES, 60 * groups), seed=0)[metric]

    def _pooled(self, runs: Sequence[Mapping[Key, bootstrap.Table]]) -> bootstrap.Table:
        """Statistics of the shared rows, summed over the runs that have them, with the same weight for each row."""
        width = sum(metric.width for metric in self.metrics)
        found = [rows for key in self.keys if (rows := [run[key] for run in runs if key in run])]
        common = math.lcm(*(len(rows) for rows in found))  # sums stay whole numbers, as BLEU needs
        return np.array([sum(rows) * (common // len(rows)) for rows in found], dtype=float).reshape(len(found), width)


def shared_rows(groups: Sequence[Sequence[BoardRun]]) -> SharedRows | None:
    """The rows that all groups share; None if they share none.

    A row is identified by the hash of its prompt and answer, or in older runs by the line of its file, question and reference.
    Rows whose reference was cut to the token budget of a run are omitted.
    """
    runs = [run for group in groups for run in group]
    by_hash = all(isinstance(row.get("identity"), str) and row["identity"] for run in runs for row in run.predictions)
    rows = [[dict(_keyed(run.predictions, by_hash)) for run in group] for group in groups]
    had = [set().union(*of_group) for of_group in rows]
    cut = {key for of_group in rows for of_run in of_group for key, row in of_run.items() if row.get("cut") is True}
    keys = [
        key for key in dict.fromkeys(k for run in rows[0] for k in run) if key not in cut and all(key in h for h in had)
    ]
    if not keys:
        return None
    by_key = [[run[key] for group in rows for run in group if key in run] for key in keys]
    same = all(len({_tokens(row) for row in of_key}) == 1 for of_key in by_key)
    metrics = _metrics(runs, [row for of_key in by_key for row in of_key], same_tokens=same)
    statistics = [[{key: _statistics(metrics, run[key]) for key in keys if key in run} for run in of] for of in rows]
    return SharedRows(metrics, keys, max(map(len, had)), same, _split(runs), statistics)


def _split(runs: Sequence[BoardRun]) -> str:
    splits = {run.split for run in runs if run.predictions}
    return splits.pop() if len(splits) == 1 else "evaluation"


def _keyed(predictions: Sequence[Row], by_hash: bool) -> Iterator[tuple[Key, Row]]:
    """Rows by their identity; equal rows of one run are numbered."""
    seen: Counter[Key] = Counter()
    for row in predictions:
        key = (row["identity"],) if by_hash else _place_key(row)
        seen[key] += 1
        yield (*key, seen[key]), row


def _place_key(row: Row) -> Key:
    place = PurePath(str(row.get("place") or "")).name
    return place, str(row.get("question") or ""), str(row.get("reference") or "")


def _metrics(runs: Sequence[BoardRun], rows: Sequence[Row], *, same_tokens: bool) -> list[Metric]:
    """The scores that all rows have."""
    tokenizers = {run.settings.get("evaluate.bleu_tokenizer", "13a") for run in runs}
    bleu_tokenizer = tokenizers.pop() if len(tokenizers) == 1 else "13a"
    keywords = any(run.test.get("keyword_f1") is not None for run in runs)
    known = [*builtin_metrics(bleu_tokenizer=str(bleu_tokenizer), keywords=keywords), nats_per_byte(), judge_metric()]
    measured = all(_nats(row) is not None for row in rows)
    excluded = {
        "loss": not (measured and same_tokens),
        "nats_per_byte": same_tokens or not (measured and all(run.answers_only for run in runs)),
        "judge": not all(_judged(row) is not None for row in rows),
    }
    chosen = [metric for metric in known if metric.name in SCORES and not excluded.get(metric.name)]
    return sorted(chosen, key=lambda metric: SCORES.index(metric.name))


def _statistics(metrics: Sequence[Metric], row: Row) -> bootstrap.Table:
    """The statistics of one row, [statistics]."""
    answer, reference = str(row.get("answer") or ""), str(row.get("reference") or "")
    answered = ScoredAnswer(answer, reference, None, _nats(row), _tokens(row))
    judged = (_judged(row), 1)
    numbers = [n for metric in metrics for n in (judged if metric.name == "judge" else metric.row(answered))]
    return np.array(numbers, dtype=float)


def _nats(row: Row) -> float | None:
    value = row.get("nats")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _tokens(row: Row) -> int:
    value = row.get("supervised")
    return value if isinstance(value, int) else 0


def _judged(row: Row) -> float | None:
    scores = row.get("scores")
    value = scores.get("judge") if isinstance(scores, dict) else None
    return float(value) if isinstance(value, int | float) else None
