"""The number of rows on which a difference is seen."""

import numpy as np

from llmft.metrics.builtin import builtin_metrics
from llmft.metrics.verdict.power import LIMIT, SIZES, rows_needed

LOSS = builtin_metrics()[0]


def needed(differences):
    tuned = np.array([[5.0 + difference, 1.0] for difference in differences])
    return rows_needed(LOSS, tuned, np.full_like(tuned, (5.0, 1.0)), seed=0)


def test_the_number_of_rows_of_the_normal_approximation():
    # mean 1, standard deviation 2: ((1.96 + 0.8416) x 2 / 1)^2 = 31.4 rows
    assert needed([3.0, -1.0] * 50) in (30, 40)
    assert needed([-3.0, 1.0] * 50) in (30, 40)
    # mean 0.1: (2.8016 x 2 / 0.1)^2 = 3,140
    assert needed([2.1, -1.9] * 50) in (2500, 3000, 4000)


def test_what_needs_the_fewest_and_the_most():
    assert needed([1.0] * 20) == SIZES[0] == 6
    assert needed([1.0001, -1.0] * 20) == LIMIT
    assert needed([0.0] * 20) is None
    assert needed([1.0, -1.0] * 20) is None
    assert needed([1.0] * 5) is None
    assert needed([float("nan")] * 20) is None
