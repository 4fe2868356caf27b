"""Intervals and verdicts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.metrics import bootstrap, permutation
from llmft.metrics.metric import Metric, mean_metric, ratio
from llmft.report.leaderboard import significance

LOSS = Metric("loss", 2, lambda _: (0, 0), ratio, "not known", "")
F1 = mean_metric("f1", lambda _: None, "")


def column(values):
    return np.array([[value, 1.0] for value in values])


def compare(metric, tuned, base=None, resamples=1000):
    return bootstrap.compare([metric], tuned, base, resamples=resamples, seed=1)[metric.name]


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(3).normal(2.0, 1.0, size=400)
    low, high = compare(LOSS, column(values))["tuned_interval"]
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_it_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        low, high = compare(LOSS, column(random.exponential(1.0, size=60)), resamples=200)["tuned_interval"]
        hits += low <= 1.0 <= high
    assert 0.87 <= hits / 200 <= 0.99


def test_pairs_see_what_two_intervals_would_hide():
    random = np.random.default_rng(7)
    hard = random.normal(3.0, 1.0, size=100)  # rows differ much, systems by 0.1 on each
    found = compare(LOSS, column(hard - 0.1 + random.normal(0, 0.05, 100)), column(hard))
    assert found["tuned_interval"][1] > found["base_interval"][0]  # the intervals overlap
    assert found["verdict"] == "better"
    assert found["difference"] == pytest.approx(-0.1, abs=0.02)
    assert compare(LOSS, column(hard + 0.1), column(hard))["verdict"] == "worse"


def test_luck_is_no_difference():
    random = np.random.default_rng(9)
    hard = random.normal(3.0, 1.0, size=100)
    verdicts = [
        compare(LOSS, column(hard + random.normal(0, 0.5, 100)), column(hard), 200)["verdict"] for _ in range(60)
    ]
    assert verdicts.count("no difference seen") >= 52  # 57 expected


def test_more_is_better_of_a_score():
    assert compare(F1, column([0.9] * 8), column([0.1] * 8))["verdict"] == "better"
    assert compare(F1, column([0.1] * 8), column([0.9] * 8))["verdict"] == "worse"
    assert compare(F1, column([0.5] * 8), column([0.5] * 8))["verdict"] == "no difference seen"
    words = Metric("words", 2, lambda _: (0, 0), ratio, "", "")
    assert compare(words, column([9.0] * 8), column([1.0] * 8))["verdict"] == "higher"


def test_a_few_rows_have_no_verdict():
    found = compare(F1, column([0.9] * 5), column([0.1] * 5))
    assert (found["tuned"], found["difference"]) == (pytest.approx(90), pytest.approx(80))
    assert found["tuned_interval"] is found["difference_interval"] is found["verdict"] is None
    assert found["reason"] == "5 rows: too few for an interval (6 at least)"


def test_a_score_that_is_not_defined_has_a_reason():
    found = compare(F1, np.zeros((8, 2)), column([0.5] * 8))
    assert found["tuned"] is found["difference"] is found["verdict"] is None
    assert found["base"] == 50
    assert found["reason"] == "tuned: there are no rows"


def test_an_interval_of_few_rows_is_told_from_one_that_is_undefined():
    """One of six rows has words: a third of the resamples has none of them."""
    rows = np.array([[0.5, 1.0], *[[0.0, 0.0]] * 5])
    assert compare(F1, rows, rows, 100)["reason"].startswith("no interval: the score is undefined")
    assert compare(F1, rows[:5], rows[:5], 100)["reason"] == "5 rows: too few for an interval (6 at least)"


def test_chunks_change_nothing(monkeypatch):
    rows = column(np.random.default_rng(1).random(50))
    whole = compare(F1, rows)
    monkeypatch.setattr(permutation, "CHUNK", 123)
    assert compare(F1, rows)["tuned_interval"] == pytest.approx(whole["tuned_interval"])


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=6, max_size=20), st.randoms())
def test_the_order_of_rows_changes_nothing(rows, random):
    def found(pairs):
        tuned, base = zip(*pairs, strict=True)
        return compare(F1, column(tuned), column(base), 100)

    first = found(rows)
    random.shuffle(rows)
    again = found(rows)
    for name in ("tuned", "tuned_interval", "difference_interval"):
        assert again[name] == pytest.approx(first[name], abs=1e-9)


def test_a_loss_that_is_nan_is_told_from_one_that_is_undefined():
    tables = [np.array([[loss, 1.0] for loss in losses]) for losses in ([1.0, np.nan, np.inf, *[2.0] * 5], [3.0] * 8)]
    found = compare(LOSS, *tables, resamples=100)
    assert (found["tuned"], found["difference"], found["verdict"], found["base"]) == (None, None, None, 3.0)
    assert found["reason"] == "tuned: it is NaN or infinite in 2 of 8 rows"


@pytest.mark.parametrize("better", ["lower", "higher", ""])
def test_nothing_is_better_or_worse_by_nan(better):
    assert bootstrap.verdict((np.nan, np.nan), better) is None
    assert significance.compare_seeds([1.0, np.nan], [1.0, 2.0], better) is None
