"""Which score leads a verdict; chosen before any score is known, so that it is not the best looking one."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from llmft.metrics.metric import Metric

# The score that stands for another one, or for several.
SAME_AS = {"perplexity": "loss", "keywords": "keyword_f1"}


class Primary(NamedTuple):
    """The score that leads, and why."""

    score: str
    why: str


def primary_score(objective: str | None, own: Sequence[Any], known: Collection[str], *, with_loss: bool) -> Primary:
    """The primary score of an evaluation (the primary endpoint of a trial), by a rule that does not look at the scores.

    In this order: the score that the user chose as ``objective`` (``val/chrf``: chrf), unless it is the loss, which is the
    default; the first of ``data.metrics``, which the data set declares; the loss; chrF for stored answers without a loss.

    Args:
        objective: The key; None for stored answers.
        own: ``data.metrics``: ``keywords``, the name of a built-in metric, or a Metric.
        known: The names of the scores that are computed.
        with_loss: Whether each row has a loss.
    """
    chosen = (objective or "").rpartition("/")[2]
    chosen = SAME_AS.get(chosen, chosen)
    if chosen != "loss" and chosen in known:
        return Primary(chosen, f"objective={objective}")
    declared = (metric.name if isinstance(metric, Metric) else SAME_AS.get(metric, metric) for metric in own)
    if name := next((name for name in declared if name in known), None):
        return Primary(name, "the data set's own score (data.metrics)")
    if with_loss:
        return Primary("loss", "the objective of the training")
    return Primary("chrf", "the answers are stored without a loss")
