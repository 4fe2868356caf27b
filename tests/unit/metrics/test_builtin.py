"""Scores by hand, from the libraries' published numbers, and what must hold for any text."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.config.metric_names import BETTER, OUTSIDE, monitor_mode
from llmft.metrics import bootstrap, compare
from llmft.metrics.builtin import builtin_metrics
from llmft.metrics.metric import ScoredAnswer
from llmft.metrics.text_normalization import keywords, normalize, words

HYPOTHESES = ["the cat sat on the mat", "a quick brown fox", "hello there my friend"]
REFERENCES = ["the cat sat on a mat", "the quick brown fox jumps", "hello my friend"]
ALL = builtin_metrics(keywords=True)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["", "yes", "Да, конечно", "你好 世界", "a b a b", "x, y\nz"]
)


def scores(*pairs, **known):
    return compare.corpus_scores(ALL, [ScoredAnswer(answer, reference, **known) for answer, reference in pairs])


def test_the_goldens():
    found = scores(*zip(HYPOTHESES, REFERENCES, strict=True))
    assert found["bleu"] == pytest.approx(42.3420, abs=5e-5)
    assert found["chrf"] == pytest.approx(66.1240, abs=5e-5)
    assert found["rouge1"] == pytest.approx(78.571, abs=5e-4)
    assert found["rouge2"] == pytest.approx(52.381, abs=5e-4)


def test_rouge_lsum_splits_at_newlines_and_stems():
    found = scores(
        ("The dogs are running.\nThey jumped over fences.", "They jumped over the fence.\nThe dog is running.")
    )
    assert found["rougeL"] == pytest.approx(47.06, abs=5e-3)
    assert found["rougeLsum"] == pytest.approx(82.35, abs=5e-3)


def test_rouge_of_english_is_that_of_the_library():
    from rouge_score.rouge_scorer import RougeScorer

    answer, reference = "It's 3.5 km; foo_bar runs quickly!", "Its 3.5 kilometres -- foo bar ran QUICKLY."
    plain = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(reference, answer)
    found = scores((answer, reference))
    assert {name: found[name] for name in plain} == {name: pytest.approx(100 * s.fmeasure) for name, s in plain.items()}


def test_signatures_say_how():
    said = {metric.name: metric.definition for metric in ALL}
    assert "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:" in said["bleu"]
    assert "stemmer:porter" in said["rouge1"]


def test_exact_match_and_f1_by_hand():
    found = scores(("The  Cat!", "cat"), ("a red car", "the blue car"), ("", "word"), ("", ""))
    assert found["exact_match"] == pytest.approx(100 * 2 / 4)  # rows 1 and 4
    assert found["f1"] == pytest.approx(100 * (1 + 0.5 + 0 + 1) / 4)  # row 2: {red, car} against {blue, car}


def test_keywords_by_hand():
    found = scores(("Sun, the wind; rain", "wind, sun\nsnow, fog"), ("", "a, b c"))
    assert found["keyword_precision"] == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert found["keyword_recall"] == pytest.approx(100 * (2 / 4 + 0) / 2)
    assert found["keyword_f1"] == pytest.approx(100 * (4 / 7 + 0) / 2)


def test_lengths_repetition_and_endings_by_hand():
    rows = [
        ScoredAnswer("go go go go", "x", ended=False),
        ScoredAnswer("one two", "x", ended=True),
        ScoredAnswer("", "x", ended=True),
    ]
    found = compare.corpus_scores(ALL, rows)
    assert found["words"] == pytest.approx((4 + 2 + 0) / 3)
    assert found["distinct1"] == pytest.approx(100 * (1 / 4 + 1) / 2)  # the empty answer has no words to repeat
    assert found["distinct2"] == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert found["ended"] == pytest.approx(100 * 2 / 3)


def test_perplexity_is_weighted_by_tokens():
    found = compare.corpus_scores(
        ALL, [ScoredAnswer("", "x", nats=2.0, tokens=2), ScoredAnswer("", "x", nats=150.0, tokens=50)]
    )
    assert found["loss"] == pytest.approx(152 / 52)
    assert found["perplexity"] == pytest.approx(18.598, abs=1e-3)  # not exp of a mean of means, 7.389, nor 11.402


def test_other_scripts_are_no_zero():
    found = scores(
        ("Столица Франции — Париж.", "Столица Франции — Париж."),
        ("今天天气很好", "今天天气很好"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
    )
    for name in ("exact_match", "f1", "chrf", "rouge1", "rougeL"):
        assert found[name] == pytest.approx(100), name
    assert words("नमस्ते 世界 café") == ["नमस्ते", "世", "界", "café"]


def test_what_is_not_defined_is_none():
    found = scores(("yes", "yes"), ("no", "no"))
    assert found["bleu"] is None  # two equal corpora of one-word answers would score 0
    assert found["exact_match"] == 100
    assert found["loss"] is found["ended"] is None
    assert scores(("hello", "!?"))["rouge1"] is None
    assert all(value is None for value in scores().values())
    entry = bootstrap.compare(ALL, *compare.tables_of([], ALL), resamples=100, seed=0)["bleu"]
    assert (entry["tuned"], entry["reason"]) == (None, "tuned: there are no rows")


def test_an_empty_answer_to_a_long_reference_is_zero():
    found = scores(("", "one two three four five"))
    assert (found["bleu"], found["chrf"], found["rouge1"], found["f1"]) == (0, 0, 0, 0)


def test_text_of_punctuation_alone_is_compared_as_it_is():
    assert normalize("+") != normalize("-")
    assert scores(("+", "-"))["exact_match"] == 0
    assert keywords("the Sun, , !; Wind") == {"sun", "!", "wind"}


@settings(max_examples=60)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6))
def test_bounds_and_order(pairs):
    found = scores(*pairs, ended=True, nats=3.0, tokens=2)
    for name, value in found.items():
        assert value is None or (math.isfinite(value) and value >= 0), name
        if name not in ("loss", "perplexity", "words") and value is not None:
            assert value <= 100 + 1e-9, name
    again = scores(*pairs[::-1], ended=True, nats=3.0, tokens=2)
    assert again == {name: value if value is None else pytest.approx(value) for name, value in found.items()}


@settings(max_examples=60)
@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_an_answer_that_is_its_reference_is_perfect(texts):
    found = scores(*((text, text) for text in texts))
    for name in (
        "exact_match",
        "f1",
        "bleu",
        "chrf",
        "rouge1",
        "rougeL",
        "keyword_precision",
        "keyword_recall",
        "keyword_f1",
    ):
        assert found[name] is None or found[name] == pytest.approx(100), name


def test_row_statistics_have_their_width():
    for metric in ALL:
        assert len(metric.row(ScoredAnswer("a b", "a c"))) == metric.width, metric.name
    assert [metric.name for metric in ALL] == [name for name in BETTER if name not in OUTSIDE]


def test_which_way_is_better():
    assert monitor_mode("val/loss") == monitor_mode("val/perplexity") == monitor_mode("val/of_my_own") == "min"
    assert monitor_mode("val/bleu") == monitor_mode("val/keyword_f1") == "max"
