"""Intervals over seeds, and the correction for many groups."""

import pytest

from llmft.report.leaderboard import significance


def test_welch_by_hand():
    """2.1, 2.3, 2.2 against 2.0, 1.8, 1.9: difference 0.3, standard error 0.08165, 4 degrees of freedom, half width 0.22670."""
    found = significance.compare_seeds((2.1, 2.3, 2.2), (2.0, 1.8, 1.9), "lower")
    assert found is not None
    assert (found.verdict, found.text) == ("worse", "+0.3 (+0.0733 to +0.5267), seeds")
    assert found.p == pytest.approx(0.02131, abs=1e-5)  # of t = 3.674 at 4 degrees of freedom
    assert significance.compare_seeds((2.1,), (2.0, 1.8), "lower") is None


@pytest.mark.parametrize(
    ("t", "freedom", "p"), [(12.706, 1, 0.05), (2.776, 4, 0.05), (2.042, 30, 0.05), (0.0, 3, 1.0), (4.604, 4, 0.01)]
)
def test_p_of_students_t_as_in_its_table(t, freedom, p):
    assert significance.student_p(t, freedom) == pytest.approx(p, abs=5e-5)


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.7062), (1.5, 6.0167), (4, 2.7764), (4.5, 2.6589), (30, 2.0423), (1e4, 1.9602)]
)
def test_interval_and_p_have_the_same_degrees_of_freedom(freedom, t):
    """Welch's are no whole number: rounded down to 1, the interval of 1.5 would be twice as wide as its p-value says."""
    assert significance.student_quantile(freedom) == pytest.approx(t, abs=5e-4)
    assert significance.student_p(t, freedom) == pytest.approx(0.05, abs=5e-5)


def test_worse_by_chance_among_many_is_no_difference():
    """Holm: .01 x 3 = .03; .03 x 2 = .06, and .04 x 1 is not below the one before it."""
    found = [significance.Difference("worse", "d", p) for p in (0.01, 0.04, 0.03)]
    first, second, third, fourth = significance.corrected([*found, None])
    assert first is not None
    assert second is not None
    assert third is not None
    assert fourth is None
    assert [d.verdict for d in (first, second, third)] == ["worse", "no difference seen", "no difference seen"]
    assert second.text == "d; worse only without correction for 3 comparisons"
