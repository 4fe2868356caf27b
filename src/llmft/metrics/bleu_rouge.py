"""BLEU and chrF from sacrebleu, ROUGE from rouge-score, as sums of per-example statistics."""

from functools import cache
from importlib.metadata import version
from typing import Any

from llmft.metrics import text_normalization
from llmft.metrics.metric import Metric, ScoredAnswer, Statistics, mean_metric

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def bleu(tokenizer: str) -> Metric:
    """Corpus BLEU-4; undefined if no reference has four words, since even equal texts would score 0.

    Args:
        tokenizer: sacrebleu's ``tokenize``: ``13a``, ``zh``, ``char`` or ``intl``.
    """
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(tokenize=tokenizer)

    def row(answered: ScoredAnswer) -> Statistics:
        found = scorer.corpus_score([answered.answer], [[answered.reference]])
        reference_4grams = max(found.ref_len - 3, 0)
        return (*found.counts, *found.totals, found.sys_len, found.ref_len, reference_4grams)

    def score(sums: Statistics) -> float | None:
        if not sums[10]:
            return None
        counts, totals = [int(n) for n in sums[:4]], [int(n) for n in sums[4:8]]
        return BLEU.compute_bleu(counts, totals, int(sums[8]), int(sums[9]), smooth_method="exp").score

    scorer.corpus_score(["a"], [["a"]])
    signature = f"corpus BLEU|sacrebleu|{scorer.get_signature()}"
    return Metric("bleu", 11, row, score, "no reference holds four words", signature)


def chrf() -> Metric:
    """Corpus chrF2: F-score (beta = 2) of character 1- to 6-grams."""
    from sacrebleu.metrics.chrf import CHRF

    scorer = CHRF()

    def row(answered: ScoredAnswer) -> Statistics:
        return scorer._extract_corpus_statistics([answered.answer], [[answered.reference]])[0]

    def score(sums: Statistics) -> float | None:
        return scorer._compute_f_score(list(sums)) if sums[1] else None  # pyright: ignore[reportArgumentType]

    scorer.corpus_score(["a"], [["a"]])
    signature = f"corpus chrF2|sacrebleu|{scorer.get_signature()}"
    return Metric("chrf", 18, row, score, "no reference holds a character", signature)


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(ROUGE, tokenizer=text_normalization.RougeTokenizer())


@cache
def _rouge_of(answer: str, reference: str) -> dict[str, float | None]:
    if not text_normalization.words(reference):
        return dict.fromkeys(ROUGE)
    return {name: found.fmeasure for name, found in _rouge_scorer().score(reference, answer).items()}


def _rouge(answered: ScoredAnswer) -> dict[str, float | None]:
    return _rouge_of(answered.answer, answered.reference)


def rouge() -> list[Metric]:
    """ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum (split at newlines): F1, mean over examples."""
    about = f"F1, mean over rows|rouge-score:{version('rouge-score')}|stemmer:porter|tokens:words of any script"
    return [
        mean_metric(name, lambda a, name=name: _rouge(a)[name], about, "no reference holds a word") for name in ROUGE
    ]
