"""Intervals over seeds."""

from llmft.report.leaderboard import significance


def test_welch_by_hand():
    """2.1, 2.3, 2.2 against 2.0, 1.8, 1.9: difference 0.3, standard error 0.08165, 4 degrees of freedom, half width 0.22666."""
    verdict, numbers = significance.compare_seeds((2.1, 2.3, 2.2), (2.0, 1.8, 1.9), "lower") or ("", "")
    assert verdict == "worse"
    assert numbers == "+0.3 (+0.07334 to +0.5267), seeds"
    assert significance.compare_seeds((2.1,), (2.0, 1.8), "lower") is None
