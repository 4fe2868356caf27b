"""BLEU and chrF from sacrebleu, ROUGE from rouge-score, as sums of row statistics."""

from functools import cache
from importlib.metadata import version
from typing import Any

from llmft.metrics import text_normalization
from llmft.metrics.metric import Metric, Numbers, ScoredAnswer, mean

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def bleu(tokenizer: str) -> Metric:
    """Corpus BLEU; not defined where no reference has four words, since even equal texts would score 0.

    Args:
        tokenizer: sacrebleu's.
    """
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(tokenize=tokenizer)

    def row(answered: ScoredAnswer) -> Numbers:
        found = scorer.corpus_score([answered.answer], [[answered.reference]])
        room = max(found.ref_len - 3, 0)  # 4-grams of the reference: without any, BLEU says nothing
        return (*found.counts, *found.totals, found.sys_len, found.ref_len, room)

    def score(sums: Numbers) -> float | None:
        if not sums[10]:
            return None
        counts, totals = [int(n) for n in sums[:4]], [int(n) for n in sums[4:8]]
        return BLEU.compute_bleu(counts, totals, int(sums[8]), int(sums[9]), smooth_method="exp").score

    scorer.corpus_score(["a"], [["a"]])
    signature = f"corpus BLEU|sacrebleu|{scorer.get_signature()}"
    return Metric("bleu", 11, row, score, "no reference holds four words", signature)


def chrf() -> Metric:
    """Corpus chrF2: F-score (recall twice as heavy) of character 1- to 6-grams."""
    from sacrebleu.metrics.chrf import CHRF

    scorer = CHRF()

    def row(answered: ScoredAnswer) -> Numbers:
        return scorer._extract_corpus_statistics([answered.answer], [[answered.reference]])[0]

    def score(sums: Numbers) -> float | None:
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
    """ROUGE-1, -2, -L and -Lsum (which splits at newlines): F1, mean over rows."""
    about = f"F1, mean over rows|rouge-score:{version('rouge-score')}|stemmer:porter|tokens:words of any script"
    return [mean(name, lambda a, name=name: _rouge(a)[name], about, "no reference holds a word") for name in ROUGE]
