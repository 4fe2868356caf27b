"""Losses against numbers by hand; the chunked loss, which never holds all logits, against the plain formula."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.callbacks.perplexity import perplexity
from llmft.models import loss
from llmft.models.loss import (
    Positions,
    TokenLoss,
    capture_hidden,
    chunked_cross_entropy_sum,
    head_at_positions,
    supervised,
    token_loss_sum,
)


class OneProcess:
    world_size = 1


def test_cross_entropy_of_two_tokens():
    total, tokens = token_loss_sum(torch.tensor([[-1.0, 1.0], [-0.5, 1.5]]), torch.tensor([0, 1]))
    assert tokens == 2
    assert float(total) / 2 == pytest.approx(1.1269, abs=1e-4)


def test_a_weighted_cross_entropy_by_hand():
    # the losses are 2.126928 and 0.126928: 2 * 2.126928 + 0.5 * 0.126928
    logits, targets, weights = torch.tensor([[-1.0, 1.0], [-0.5, 1.5]]), torch.tensor([0, 1]), torch.tensor([2.0, 0.5])
    for total, tokens in (
        token_loss_sum(logits, targets, weights),
        chunked_cross_entropy_sum(torch.eye(2), logits.T, None, targets, weights),
    ):
        assert float(total) == pytest.approx(4.317320, abs=1e-5)
        assert float(tokens) == 2.5


def test_a_sum_of_weights_below_one_divides_too():
    sums = TokenLoss()
    sums.add(torch.tensor(0.25 * 3.0), torch.tensor(0.25))
    assert sums.mean(OneProcess()) == (3.0, 0.25)
    sums.add(torch.tensor(0.75 * 3.0), torch.tensor(0.75))
    tokens = sums.mean(OneProcess())[1]
    assert (tokens, type(tokens)) == (1, int)


def test_nothing_to_learn_is_zero_and_still_has_a_gradient():
    logits = torch.zeros((0, 5), requires_grad=True)
    total, tokens = token_loss_sum(logits, torch.zeros(0, dtype=torch.long))
    assert (total.item(), int(tokens)) == (0.0, 0)
    total.backward()
    assert logits.grad is not None


def test_means_are_weighted_by_tokens():
    sums = TokenLoss()
    sums.add(torch.tensor(2 * 1.0), torch.tensor(2))
    sums.add(torch.tensor(50 * 3.0), torch.tensor(50))
    loss, tokens = sums.mean(OneProcess())
    assert tokens == 52
    assert perplexity(loss) == pytest.approx(18.598, abs=1e-3)  # mean of losses 7.389, mean of perplexities 11.402


def test_perplexity_beyond_a_float_is_infinite():
    assert perplexity(0.0) == 1
    assert perplexity(1e4) == perplexity(math.inf) == math.inf
    assert math.isnan(perplexity(math.nan))


def test_the_head_is_applied_at_the_chosen_positions_only():
    class Model:
        head = torch.nn.Linear(3, 7)

        def get_output_embeddings(self):
            return self.head

    model, hidden = Model(), torch.randn(2, 4, 3)
    chosen = Positions.of(supervised(torch.tensor([[-100, -100, 5, 6], [-100, 1, -100, -100]])))
    with head_at_positions(model, chosen):
        few = model.head(hidden)
    every = model.head(hidden)
    assert every.shape == (2, 4, 7)
    assert torch.equal(few, torch.stack([every[0, 2], every[0, 3], every[1, 1]]))


def both(n, dtype, bias, weighted=False):
    torch.manual_seed(n)
    weights = torch.rand(n) if weighted else None
    hidden, weight = torch.randn(n, 6).to(dtype), torch.randn(11, 6).to(dtype)
    offset = torch.randn(11).to(dtype) if bias else None
    targets = torch.randint(0, 11, (n,))
    found = []
    for chunked in (True, False):
        inputs = [t.clone().requires_grad_() for t in (hidden, weight, offset) if t is not None]
        h, w, b = inputs[0], inputs[1], inputs[2] if bias else None
        total = (
            chunked_cross_entropy_sum(h, w, b, targets, weights)[0]
            if chunked
            else loss.token_loss_sum(torch.nn.functional.linear(h, w, b), targets, weights)[0]
        )
        (3 * total).backward()
        found.append([total.detach(), *(t.grad for t in inputs)])
    return zip(*found, strict=True)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 40), chunk=st.integers(1, 17), bias=st.booleans(), weighted=st.booleans())
def test_sum_and_gradients_are_those_of_the_plain_formula(n, chunk, bias, weighted):
    kept, loss.CHUNK = loss.CHUNK, chunk
    try:
        for ours, plain in both(n, torch.float32, bias, weighted):
            torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    finally:
        loss.CHUNK = kept


def test_in_bfloat16_the_sum_is_exact_to_float32():
    (total, plain), *gradients = both(300, torch.bfloat16, bias=False)
    assert total.dtype == torch.float32
    assert float(total) == pytest.approx(float(plain), rel=1e-5)
    for ours, theirs in gradients:
        torch.testing.assert_close(ours, theirs, rtol=3e-2, atol=0.2)


def test_under_autocast_it_multiplies_in_bfloat16_and_keeps_float32_weights():
    hidden, weight = torch.randn(5, 6, requires_grad=True), torch.randn(11, 6, requires_grad=True)
    targets = torch.randint(0, 11, (5,))
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = chunked_cross_entropy_sum(hidden, weight, None, targets)
        plain, _ = loss.token_loss_sum(torch.nn.functional.linear(hidden, weight), targets)
    assert total.item() == pytest.approx(plain.item(), rel=1e-6)
    total.backward()
    assert weight.grad is not None
    assert weight.grad.dtype == hidden.grad.dtype == torch.float32  # pyright: ignore


def test_under_no_grad_no_gradient_is_computed():
    hidden, weight = torch.randn(5, 6, requires_grad=True), torch.randn(11, 6, requires_grad=True)
    with torch.no_grad():
        total, tokens = chunked_cross_entropy_sum(hidden, weight, None, torch.zeros(5, dtype=torch.long))
    assert (total.requires_grad, int(tokens)) == (False, 5)


@pytest.mark.parametrize(
    ("device", "vocabulary", "positions"),
    [("cpu", 32_000, 256), ("meta", 32_000, 256), ("mps", 32_000, 256), ("cuda", 32_000, 2048), ("cuda", 50_257, 1280), ("cuda", 10**6, 256)],
)  # fmt: skip
def test_a_gpu_computes_more_positions_at_once(device, vocabulary, positions):
    assert loss.positions_at_once(device, vocabulary) == positions


def test_an_estimate_counts_the_positions_of_a_gpu():
    with loss.meta_stands_for("cuda"):
        assert loss.positions_at_once("meta", 32_000) == 2048
        assert loss.positions_at_once("cpu", 32_000) == 256
    assert loss.positions_at_once("meta", 32_000) == 256


def test_what_is_frozen_gets_no_gradient():
    hidden, weight = torch.randn(5, 6, requires_grad=True), torch.randn(11, 6)
    chunked_cross_entropy_sum(hidden, weight, None, torch.zeros(5, dtype=torch.long))[0].backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0


@pytest.mark.parametrize("outer_first", [True, False])
def test_the_head_is_applied_once_and_its_input_is_captured(outer_first):
    class Model:
        head = torch.nn.Linear(3, 7)

        def get_output_embeddings(self):
            return self.head

    model, hidden = Model(), torch.randn(2, 4, 3)
    chosen = torch.tensor([[False, True, True, False], [False, False, False, True]])
    contexts = [lambda: capture_hidden(model), lambda: head_at_positions(model, Positions.of(chosen))]
    first, second = contexts if outer_first else reversed(contexts)
    with first() as a, second() as b:
        assert model.head(hidden).shape == (1, 7)
    assert torch.equal((a or b).hidden, hidden[chosen])
    assert model.head(hidden).shape == (2, 4, 7)
