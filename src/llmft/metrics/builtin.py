"""The metrics of an evaluation."""

import math
from collections import Counter

from llmft.metrics import bleu_rouge, text_normalization
from llmft.metrics.metric import Metric, Numbers, ScoredAnswer, mean, ratio

NO_MODEL = "no model was asked for it"


def metrics(*, bleu_tokenizer: str = "13a", keywords: bool = False) -> list[Metric]:
    """The metrics of an evaluation, in the order in which they are shown.

    Args:
        bleu_tokenizer: sacrebleu's tokenizer: ``13a``, or ``zh``, ``char``, ``intl``.
        keywords: Whether answers are lists of keywords, so that precision and recall of those mean something.
    """
    return [
        Metric("loss", 2, _loss, ratio, NO_MODEL, "nats per supervised token of the reference"),
        Metric("perplexity", 2, _loss, _perplexity, NO_MODEL, "exp of the loss"),
        mean(
            "exact_match",
            _exact_match,
            "normal forms are equal (NFKC; no case, punctuation, English articles: SQuAD's)",
        ),
        mean("f1", _token_f1, "F1 of the tokens of the normal forms, mean over rows; both empty is 100, one empty 0"),
        bleu_rouge.bleu(bleu_tokenizer),
        bleu_rouge.chrf(),
        *bleu_rouge.rouge(),
        *(_keyword_metrics() if keywords else []),
        Metric("words", 2, _words, ratio, "there are no rows", "mean words of an answer (Han and kana: characters)"),
        *(_distinct(n) for n in (1, 2)),
        mean(
            "ended",
            _ended,
            "answers that ended by themselves, not at the token limit",
            "how answers ended is not known",
        ),
    ]


def judged() -> Metric:
    """The metric that a judge's scores make; its rows come from the judge."""
    return Metric(
        "judge", 2, lambda _: (0, 0), ratio, "the judge gave no valid score", "mean of valid scores, 0 to 100"
    )


def _exact_match(answered: ScoredAnswer) -> float:
    return float(text_normalization.normal(answered.answer) == text_normalization.normal(answered.reference))


def _words(answered: ScoredAnswer) -> Numbers:
    return len(text_normalization.words(answered.answer)), 1


def _ended(answered: ScoredAnswer) -> float | None:
    return None if answered.ended is None else float(answered.ended)


def _keyword_metrics() -> list[Metric]:
    how = "of the set of keywords (split at commas, semicolons, newlines; normal form), mean over rows"
    return [
        mean(f"keyword_{part}", lambda a, i=i: _keywords(a)[i], f"{part} {how}", "no reference holds a keyword")
        for i, part in enumerate(("precision", "recall", "f1"))
    ]


def _loss(answered: ScoredAnswer) -> Numbers:
    return (0, 0) if answered.nats is None else (answered.nats, answered.tokens)


def _perplexity(sums: Numbers) -> float | None:
    mean = ratio(sums)
    return None if mean is None else math.exp(min(mean, 700))


def _f1(found: Counter[str], wanted: Counter[str]) -> float:
    common = (found & wanted).total()
    return 2 * common / (found.total() + wanted.total()) if common else float(not found and not wanted)


def _token_f1(answered: ScoredAnswer) -> float:
    found, wanted = (Counter(text_normalization.normal(text).split()) for text in (answered.answer, answered.reference))
    return _f1(found, wanted)


def _keywords(answered: ScoredAnswer) -> tuple[float | None, float | None, float | None]:
    found, wanted = text_normalization.keywords(answered.answer), text_normalization.keywords(answered.reference)
    if not wanted:
        return None, None, None
    common = len(found & wanted)
    return common / len(found) if found else 0.0, common / len(wanted), _f1(Counter(found), Counter(wanted))


def _distinct(n: int) -> Metric:
    def value(answered: ScoredAnswer) -> float | None:
        tokens = text_normalization.words(answered.answer)
        grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        return len(set(grams)) / len(grams) if grams else None

    what = f"different {n}-grams among all of an answer (an answer that repeats itself is low), mean over answers"
    return mean(f"distinct{n}", value, what, f"no answer holds {n} words")
