"""The metric interface: per-example statistics whose sums determine the corpus score.

Only the statistics are kept in memory, and a bootstrap is a matrix product over them. Fractions and similarities are in per
cent, 0 to 100.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmft.config.metric_names import BETTER

Statistics = Sequence[float]


class ScoredAnswer(NamedTuple):
    """A generated answer with its reference.

    Attributes:
        answer: The generated text.
        reference: The expected text.
        ended: Whether the answer finished with EOS; None if not known.
        nats: Cross-entropy of the reference under the model in nats, summed over its supervised tokens; None without a model.
        tokens: Number of supervised tokens.
    """

    answer: str
    reference: str
    ended: bool | None = None
    nats: float | None = None
    tokens: int = 0


@dataclass(frozen=True)
class Metric:
    """A corpus metric that is a function of summed per-example statistics.

    Attributes:
        name: Its name in all files.
        width: Number of statistics per example.
        row: Computes the statistics of an answer; all zero if the metric is undefined for it.
        score: Computes the corpus score from the summed statistics; None if undefined.
        undefined: Reason shown if the score is None.
        definition: Description with the signature of the library that computes it.
    """

    name: str
    width: int
    row: Callable[[ScoredAnswer], Statistics]
    score: Callable[[Statistics], float | None]
    undefined: str
    definition: str

    @property
    def better(self) -> str:
        """``higher`` (the default of a user's metric), ``lower``, or "" if the metric has no better direction."""
        return BETTER.get(self.name, "higher")


def mean_metric(
    name: str, value: Callable[[ScoredAnswer], float | None], definition: str, undefined: str = "there are no rows"
) -> Metric:
    """A metric that is the mean of a per-example value from 0 to 1, in per cent; examples with value None are skipped."""

    def row(answered: ScoredAnswer) -> Statistics:
        found = value(answered)
        return (0, 0) if found is None else (found, 1)

    def score(sums: Statistics) -> float | None:
        return 100 * sums[0] / sums[1] if sums[1] else None

    return Metric(name, 2, row, score, undefined, f"per cent: {definition}")


def ratio(sums: Statistics) -> float | None:
    """First sum divided by the second; None if the second is 0."""
    return sums[0] / sums[1] if sums[1] else None
