"""AdamW, clipping and schedules of the referee, with numbers by hand."""

import math

import pytest
import torch

from llmft.referee.optimizer import AdamW, Schedule, clip_factor, norm_of, total_steps


def test_adamw_of_two_steps():
    optimizer = AdamW((0.9, 0.99), 0.0, 0.1)
    # step 1: both moments, unbiased, are g and g*g, so the step is lr times the sign; the decay is lr * 0.1 of the weight
    one = optimizer.updated("w", torch.tensor([2.0]), torch.tensor([3.0]), 0.01)
    assert one.item() == pytest.approx(2.0 - 0.01 * 0.1 * 2.0 - 0.01, abs=1e-15)
    # step 2: m = 0.9*0.3 + 0.1*(-1) = 0.17 over 0.19; v = 0.99*0.09 + 0.01*1 = 0.0991 over 0.0199
    two = optimizer.updated("w", one, torch.tensor([-1.0]), 0.01)
    expected = one.item() * (1 - 0.001) - 0.01 * (0.17 / 0.19) / math.sqrt(0.0991 / 0.0199)
    assert two.item() == pytest.approx(expected, abs=1e-15)


def test_clipping_scales_only_a_norm_above_the_limit():
    norm = norm_of({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])})
    assert norm == 5.0
    assert clip_factor(norm, 1.0) == pytest.approx(1 / 5.000001, abs=1e-15)
    assert clip_factor(norm, 5.0) == clip_factor(norm, None) == 1.0


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0, 0.5, 1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]),
        ("constant_with_warmup", [0, 0.5, 1, 1, 1, 1]),
    ],
)
def test_schedules_of_six_steps_with_two_of_warmup(name: str, rates: list[float]):
    schedule = Schedule(name, peak=1.0, warmup=2, total=6)
    assert [schedule.rate(step) for step in range(6)] == pytest.approx(rates, abs=1e-15)


def test_a_plateau_waits_for_more_than_its_patience():
    schedule, rates = Schedule("plateau", peak=1.0, factor=0.5, patience=1), []
    for loss in (3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0, 1.0, 1.0):
        rates.append(schedule.rate(0))
        schedule.seen(loss)
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_steps_of_a_training_whose_last_window_is_short():
    assert total_steps(10, 4, 2, -1) == 6
    assert total_steps(10, 4, 2, 5) == 5
    assert total_steps(None, 4, -1, 7) == 7
