"""Learning rates per optimizer step."""

import pytest
import torch

from llmft.models.schedule import planned_steps, warmup_schedule


@pytest.mark.parametrize(
    ("batches", "accumulate", "epochs", "most", "steps"),
    [
        (8, 1, 3, -1, 24),
        (8, 4, 3, -1, 6),
        (9, 4, 3, -1, 9),
        (9, 4, 3, 5, 5),
        (9, 4, -1, 40, 40),
        (2, 4, 1, -1, 1),
        (9, 4, 1, 99, 3),
    ],
)
def test_planned_steps(batches, accumulate, epochs, most, steps):
    assert planned_steps(batches, accumulate, epochs, most) == steps


def rates(name, warmup, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_schedule(optimizer, name=name, warmup_steps=warmup, total_steps=total)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_linear():
    assert rates("linear", 2, 6) == pytest.approx([0, 0.5, 1, 0.75, 0.5, 0.25, 0])


def test_a_fraction_below_one_is_a_share_of_all_steps():
    assert rates("linear", 0.25, 8) == rates("linear", 2, 8)
    assert rates("linear", 0, 4) == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_constant_and_cosine():
    assert rates("constant_with_warmup", 1, 4) == [0, 1, 1, 1, 1]
    assert rates("cosine", 0, 4) == pytest.approx([1, 0.853553, 0.5, 0.146447, 0], abs=1e-6)
