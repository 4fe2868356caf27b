"""Sums of retention per category, the thresholds that flag a model, and the sentence of the verdict."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# Nats per token, from trainings of SmolLM2-135M-Instruct (docs/evaluation.md, "Retention").
MAX_LOSS_INCREASE = 0.5
MAX_KL = 0.5


class Measured(NamedTuple):
    """A general row in the base and in the tuned model.

    Attributes:
        category: Of the row.
        before: Loss of the reference in the base: nats, summed, and tokens.
        after: Loss of the reference in the tuned model.
        kl: KL(base || tuned) on the base's answer, in nats, summed over ``answer_tokens``.
        answer_tokens: Tokens of the base's answer.
        rest: Probability in the base of the tokens that ``kl`` counts as one, summed over ``answer_tokens``.
    """

    category: str
    before: tuple[float, int]
    after: tuple[float, int]
    kl: float
    answer_tokens: int
    rest: float


def summarize(rows: Sequence[Measured]) -> dict[str, Any]:
    """Token-weighted means, in total and per category; whether the model is flagged; and the sentence of the verdict.

    A model is flagged by ``MAX_LOSS_INCREASE`` and ``MAX_KL`` alone: an answer may change without being worse.

    Args:
        rows: At least one.
    """
    names = dict.fromkeys(row.category for row in rows)
    total = _means(rows)
    flagged = is_flagged(total)
    return {
        **total,
        "categories": {name: _means([row for row in rows if row.category == name]) for name in names},
        "thresholds": {"loss_increase": MAX_LOSS_INCREASE, "kl": MAX_KL},
        "flagged": flagged,
        "sentence": sentence(total, flagged=flagged),
    }


def is_flagged(means: dict[str, Any]) -> bool:
    """Whether loss or KL divergence exceed their thresholds, or are not finite."""
    increase, kl = means["loss_after"] - means["loss_before"], means["kl"]
    return not (increase <= MAX_LOSS_INCREASE and kl <= MAX_KL)


def sentence(means: dict[str, Any], *, flagged: bool) -> str:
    """The sentence of the verdict."""
    loss, kl = f"loss {means['loss_before']:.2f} -> {means['loss_after']:.2f}", f"KL from the base {means['kl']:.2f}"
    return (
        f"what it forgot: {'too much' if flagged else 'little'}; on {means['rows']} general rows {loss}, {kl} nats per token "
        f"(limits +{MAX_LOSS_INCREASE:g}, {MAX_KL:g})"
    )


def recorded(found: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of ``run.json``: all but the texts of the answers, and their number instead."""
    changed = found["changed"]
    return {**found, "changed": None if changed is None else len(changed)}


def _means(rows: Sequence[Measured]) -> dict[str, Any]:
    tokens, answer_tokens = sum(row.before[1] for row in rows), sum(row.answer_tokens for row in rows)
    return {
        "rows": len(rows),
        "tokens": tokens,
        "loss_before": math.fsum(row.before[0] for row in rows) / tokens,
        "loss_after": math.fsum(row.after[0] for row in rows) / tokens,
        "answer_tokens": answer_tokens,
        "kl": math.fsum(row.kl for row in rows) / answer_tokens,
        "rest": math.fsum(row.rest for row in rows) / answer_tokens,
    }
