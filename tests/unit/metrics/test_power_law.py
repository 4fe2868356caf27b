"""The power law of a learning curve, with numbers by hand."""

import pytest

from llmft.metrics.power_law import extrapolate, fit

SIZES = [100, 200, 400, 800]
# 1 + 20 n^-0.5 at 100, 200, 400, 800: 1 + 20/10, 1 + 20/14.142, 1 + 20/20, 1 + 20/28.284
LOSSES = [3.0, 2.414214, 2.0, 1.707107]


def test_the_fit_recovers_a_known_power_law():
    law = fit(SIZES, LOSSES)
    assert (law.a, law.b, law.c) == pytest.approx((1, 20, 0.5), rel=0.06)
    assert law(1600) == pytest.approx(1.5, abs=0.005)


def test_twice_the_examples_of_a_known_curve():
    found = extrapolate(SIZES, LOSSES)
    assert found is not None
    assert (found.examples, found.loss) == (800, pytest.approx(1.707, abs=0.003))
    assert found.gain == pytest.approx(0.2071, abs=0.005)  # 1.7071 - 1.5
    assert found.interval == pytest.approx((0.2071, 0.2071), abs=0.01)
    assert found.answer == "more rows"


def test_noise_of_seeds_widens_the_interval():
    noisy = extrapolate(SIZES * 2, [loss + 0.05 for loss in LOSSES] + [loss - 0.05 for loss in LOSSES])
    assert noisy is not None
    low, high = noisy.interval
    assert low < 0.2 < high
    assert 0.02 < high - low < 0.3


def test_a_flat_curve_asks_for_other_rows():
    found = extrapolate(SIZES, [2.0, 1.5001, 1.5, 1.5])
    assert found is not None
    assert found.answer == "other rows, other model"
    assert found.gain < 0.001


def test_a_curve_that_goes_up_has_no_gain():
    found = extrapolate(SIZES, [1.0, 1.1, 1.2, 1.3])
    assert found is not None
    assert (found.gain, found.law.b) == (0, 0)


def test_noise_larger_than_the_gain_is_not_decided():
    found = extrapolate(SIZES * 2, [1.6, 1.5, 1.45, 1.42, 1.5, 1.56, 1.41, 1.46])
    assert found is not None
    assert found.answer == "not decided"


def test_three_sizes_do_not_test_a_curve_of_three_parameters():
    assert extrapolate(SIZES[:3] * 5, LOSSES[:3] * 5) is None
