"""P-values of paired differences, and their correction."""

import numpy as np
import pytest

from llmft.metrics.permutation import holm, p_values


def means(sums):
    """Two metrics: the mean of the values; an undefined one."""
    return np.stack([sums[:, 0] / sums[:, 1], np.full(len(sums), np.nan)], axis=1)


def column(values):
    return np.array([[value, 1.0] for value in values])


def test_the_share_of_swaps_with_a_difference_at_least_as_large():
    ours, theirs = column([1.0] * 6), column([0.0] * 6)
    p, undefined = p_values(means, ours, theirs, swaps=4000, seed=0)
    assert p == pytest.approx(2 / 2**6, abs=0.008)  # all six keep their order, or all change it
    assert undefined is None
    # four differences of 1: 2 of 16
    p, _ = p_values(means, column([1, 1, 1, 0]), column([0, 0, 0, -1]), swaps=4000, seed=0)
    assert p == pytest.approx(2 / 2**4, abs=0.012)
    assert p_values(means, ours, ours, swaps=100, seed=0)[0] == 1.0


def test_holm():
    # .005 x 4, .01 x 3, .03 x 2, and .04 is not smaller than the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
