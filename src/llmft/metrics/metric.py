"""What a metric is: a few numbers a row whose sums give the corpus score.

So nothing else is held while rows stream by, and a bootstrap is a matrix product. Shares and similarities are in per cent,
0 to 100.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmft.config.metric_names import BETTER

Numbers = Sequence[float]


class ScoredAnswer(NamedTuple):
    """What is scored: an answer, its reference, and what is known about them.

    Attributes:
        answer: The generated text.
        reference: The text that it should have been.
        ended: Whether it ended by itself, or None where that is not known.
        nats: Loss of the reference under the model, summed over its supervised tokens; None without a model.
        tokens: How many these were.
    """

    answer: str
    reference: str
    ended: bool | None = None
    nats: float | None = None
    tokens: int = 0


@dataclass(frozen=True)
class Metric:
    """One score.

    Attributes:
        name: What it is called in every file.
        width: Numbers it keeps a row.
        row: An answer -> these numbers; all zero where the row says nothing.
        score: Their sum -> the score, None where it is not defined.
        undefined: Why the score is None.
        definition: What it is, with the signature of the library that computes it.
    """

    name: str
    width: int
    row: Callable[[ScoredAnswer], Numbers]
    score: Callable[[Numbers], float | None]
    undefined: str
    definition: str

    @property
    def better(self) -> str:
        """``higher`` (as for every metric from outside), ``lower``, or "" if neither is better."""
        return BETTER.get(self.name, "higher")


def mean(
    name: str, value: Callable[[ScoredAnswer], float | None], definition: str, undefined: str = "there are no rows"
) -> Metric:
    """A mean over rows, of values from 0 to 1; rows where the value is None are left out."""

    def row(answered: ScoredAnswer) -> Numbers:
        found = value(answered)
        return (0, 0) if found is None else (found, 1)

    def score(sums: Numbers) -> float | None:
        return 100 * sums[0] / sums[1] if sums[1] else None

    return Metric(name, 2, row, score, undefined, f"per cent: {definition}")


def ratio(sums: Numbers) -> float | None:
    """The first sum over the second."""
    return sums[0] / sums[1] if sums[1] else None
