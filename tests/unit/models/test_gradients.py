"""Gradients are multiplied to the same bits as one by one, and clipped as torch does."""

from types import SimpleNamespace

import pytest
import torch

from llmft.callbacks.gradient_clipping import GradientClipping
from llmft.models.float16 import Float16
from llmft.models.gradients import gradients_of, scale


def optimizer_with_gradients(*dtypes):
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(3, 5).to(dtype)) for dtype in dtypes]
    for weight in weights:
        weight.grad = torch.randn(3, 5).to(weight.dtype)
    return torch.optim.SGD([*weights, torch.nn.Parameter(torch.ones(2))], lr=0.1)  # the last one has no gradient


@pytest.mark.parametrize("factor", [1 / 37, torch.tensor(1 / 37, dtype=torch.float64)])
def test_all_gradients_are_multiplied_as_one_by_one(factor):
    optimizer = optimizer_with_gradients(torch.float32, torch.bfloat16)
    expected = [gradient * factor for gradient in gradients_of(optimizer)]
    scale(gradients_of(optimizer), factor)
    assert len(expected) == 2
    assert all(torch.equal(a, b) for a, b in zip(gradients_of(optimizer), expected, strict=True))


def test_clipping_is_that_of_torch():
    ours, theirs = optimizer_with_gradients(torch.float32), optimizer_with_gradients(torch.float32)
    norm = float(torch.nn.utils.clip_grad_norm_([p for g in theirs.param_groups for p in g["params"]], 0.7))
    logged = {}
    module = SimpleNamespace(
        grad_norm=norm, float16=Float16(), log_exact=lambda name, value: logged.update({name: value})
    )
    GradientClipping(0.7).on_before_optimizer_step(None, module, ours)  # pyright: ignore[reportArgumentType]
    assert norm > 0.7
    assert torch.equal(gradients_of(ours)[0], gradients_of(theirs)[0])
    assert logged == {"train/clipped_share": 1.0}
