"""The built-in metrics of an evaluation."""

import math
from collections import Counter

from llmft.metrics import bleu_rouge, text_normalization
from llmft.metrics.metric import Metric, ScoredAnswer, Statistics, mean_metric, ratio

NO_MODEL = "needs a model, and only stored answers were scored"


def builtin_metrics(*, bleu_tokenizer: str = "13a", keywords: bool = False) -> list[Metric]:
    """The built-in metrics, in display order.

    Args:
        bleu_tokenizer: sacrebleu's tokenizer: ``13a``, ``zh``, ``char`` or ``intl``.
        keywords: Whether answers are keyword lists, to add precision, recall and F1 of the keywords.
    """
    return [
        Metric("loss", 2, _loss, ratio, NO_MODEL, "nats per supervised token of the reference"),
        Metric("perplexity", 2, _loss, _perplexity, NO_MODEL, "exp of the loss"),
        mean_metric(
            "exact_match",
            _exact_match,
            "normal forms are equal (NFKC; no case, punctuation, English articles: SQuAD's)",
        ),
        mean_metric(
            "f1", _token_f1, "F1 of the tokens of the normal forms, mean over rows; both empty is 100, one empty 0"
        ),
        bleu_rouge.bleu(bleu_tokenizer),
        bleu_rouge.chrf(),
        *bleu_rouge.rouge(),
        *(_keyword_metrics() if keywords else []),
        Metric("words", 2, _words, ratio, "there are no rows", "mean words of an answer (Han and kana: characters)"),
        *(_distinct(n) for n in (1, 2)),
        mean_metric(
            "ended",
            _ended,
            "answers that end with EOS instead of the token limit",
            "whether answers ended with EOS is not known",
        ),
    ]


def judge_metric() -> Metric:
    """The metric of an LLM judge's scores; its statistics come from the judge."""
    return Metric(
        "judge", 2, lambda _: (0, 0), ratio, "the judge gave no valid score", "mean of valid scores, 0 to 100"
    )


def nats_per_byte() -> Metric:
    """The loss by the length of the reference instead of its tokens, which compares models of different tokenizers."""

    def row(answered: ScoredAnswer) -> Statistics:
        size = len(answered.reference.encode(errors="surrogatepass"))
        return (0, 0) if answered.nats is None else (answered.nats, size)

    return Metric("nats_per_byte", 2, row, ratio, NO_MODEL, "nats per UTF-8 byte of the reference")


def _exact_match(answered: ScoredAnswer) -> float:
    return float(text_normalization.normalize(answered.answer) == text_normalization.normalize(answered.reference))


def _words(answered: ScoredAnswer) -> Statistics:
    return len(text_normalization.words(answered.answer)), 1


def _ended(answered: ScoredAnswer) -> float | None:
    return None if answered.ended is None else float(answered.ended)


def _keyword_metrics() -> list[Metric]:
    how = "of the set of keywords (split at commas, semicolons, newlines; normal form), mean over rows"
    return [
        mean_metric(f"keyword_{part}", lambda a, i=i: _keywords(a)[i], f"{part} {how}", "no reference holds a keyword")
        for i, part in enumerate(("precision", "recall", "f1"))
    ]


def _loss(answered: ScoredAnswer) -> Statistics:
    return (0, 0) if answered.nats is None else (answered.nats, answered.tokens)


def _perplexity(sums: Statistics) -> float | None:
    mean = ratio(sums)
    return None if mean is None else math.exp(min(mean, 700))


def _f1(found: Counter[str], wanted: Counter[str]) -> float:
    common = (found & wanted).total()
    return 2 * common / (found.total() + wanted.total()) if common else float(not found and not wanted)


def _token_f1(answered: ScoredAnswer) -> float:
    found, wanted = (
        Counter(text_normalization.normalize(text).split()) for text in (answered.answer, answered.reference)
    )
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

    what = f"distinct {n}-grams among all {n}-grams of an answer (low for repetitive answers), mean over answers"
    return mean_metric(f"distinct{n}", value, what, f"no answer holds {n} words")
