"""Rounding steps, and which updates of an optimizer change a weight, by hand."""

from functools import partial
from typing import Any

import pytest
import torch

from llmft.diagnostics.update_size import rounding_step, update_exceeds_rounding
from llmft.models.optimizer import bnb_adamw


@pytest.mark.parametrize(
    ("dtype", "value", "step"),
    [
        (torch.float32, 1.0, 2.0**-23),
        (torch.float32, -6.0, 2.0**-21),
        (torch.float32, 0.75, 2.0**-24),
        (torch.bfloat16, 1.0, 2.0**-7),
        (torch.bfloat16, 6.0, 2.0**-5),
        (torch.float32, 0.0, torch.finfo(torch.float32).tiny),
    ],
)
def test_the_distance_to_the_next_number(dtype, value, step):
    weight = torch.tensor([value], dtype=dtype)
    assert rounding_step(weight).tolist() == [step]
    if value:
        assert float(torch.nextafter(weight, weight * 2) - weight) == pytest.approx(step if value > 0 else -step)


def after_one_step(value, rate, *, decay=0.0, gradient=1.0, dtype=torch.float32, kind: Any = torch.optim.AdamW):
    """The first update of Adam is the learning rate times the sign of the gradient."""
    weight = torch.nn.Parameter(torch.tensor([value, value], dtype=dtype))
    made = kind([weight], lr=rate, weight_decay=decay)
    weight.grad = torch.full_like(weight, gradient)
    made.step()
    weight.data.fill_(value)
    return update_exceeds_rounding(made, weight, rate)


@pytest.mark.parametrize(
    ("value", "rate", "exceeds"),
    [
        (1.0, 2.0**-21, True),
        (1.0, 2.0**-23, False),  # one rounding step, which two roundings may lose
        (6.0, 2e-7, False),  # Gemma's norms at the second step of a long warm-up
        (6.0, 2e-6, True),
        (0.0, 1e-12, True),  # nothing is lost next to 0
        (0.0, 1e-45, False),
    ],
)
def test_an_update_is_compared_with_the_rounding_step(value, rate, exceeds):
    assert after_one_step(value, rate) is exceeds


@pytest.mark.parametrize("bits", [32, 8])  # the moments of tensors with fewer than 4,096 weights keep 32
def test_moments_of_bitsandbytes_are_read(bits):
    kind = partial(bnb_adamw, betas=(0.9, 0.999), bits=bits, paged=False, fallback=True)
    assert after_one_step(1.0, 1e-3, kind=kind) is True
    assert after_one_step(6.0, 2e-7, kind=kind) is False


def test_the_dtype_of_the_weight_counts():
    assert after_one_step(1.0, 1e-3, dtype=torch.bfloat16) is False
    assert after_one_step(1.0, 1e-3, dtype=torch.float32) is True


def test_decay_may_cancel_the_gradient():
    # a gradient of -1 adds the rate, and the decay of 1.0 takes it away again
    assert after_one_step(1.0, 1e-3, decay=1.0, gradient=-1.0) is False


def test_a_gradient_far_below_eps_makes_a_small_update():
    assert after_one_step(1.0, 1e-3, gradient=1e-14) is False  # 1e-3 * 1e-14 / 1e-8


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RAdam, torch.optim.NAdam])
def test_the_update_of_other_optimizers_is_unknown(kind):
    assert after_one_step(1.0, 1.0, kind=kind) is None


def test_without_an_update_nothing_is_known():
    weight = torch.nn.Parameter(torch.ones(1))
    assert update_exceeds_rounding(torch.optim.AdamW([weight]), weight, 1.0) is None
