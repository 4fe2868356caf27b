"""The chunked loss, which never holds all logits, against the plain formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.models import chunked_head
from llmft.models.chunked_head import capture_hidden, chunked_cross_entropy_sum, same_logits
from llmft.models.loss import Positions, head_at_positions, token_loss_sum


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
            else token_loss_sum(torch.nn.functional.linear(h, w, b), targets, weights)[0]
        )
        (3 * total).backward()
        found.append([total.detach(), *(t.grad for t in inputs)])
    return zip(*found, strict=True)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 40), chunk=st.integers(1, 17), bias=st.booleans(), weighted=st.booleans())
def test_sum_and_gradients_are_those_of_the_plain_formula(n, chunk, bias, weighted):
    kept, chunked_head.CHUNK = chunked_head.CHUNK, chunk
    try:
        for ours, plain in both(n, torch.float32, bias, weighted):
            torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    finally:
        chunked_head.CHUNK = kept


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
        plain, _ = token_loss_sum(torch.nn.functional.linear(hidden, weight), targets)
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
    assert chunked_head.positions_at_once(device, vocabulary) == positions


def test_an_estimate_counts_the_positions_of_a_gpu():
    with chunked_head.meta_stands_for("cuda"):
        assert chunked_head.positions_at_once("meta", 32_000) == 2048
        assert chunked_head.positions_at_once("cpu", 32_000) == 256
    assert chunked_head.positions_at_once("meta", 32_000) == 256


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


@pytest.mark.parametrize(
    ("given", "expected", "dtype", "same"),
    [
        ([2.718, 0.507], [2.718, 0.5], torch.bfloat16, True),  # -2.211 + 2.718: a bias that nearly cancels a product
        ([2.718, 0.507], [2.718, 0.5], torch.float32, False),
        ([2.718, 0.6], [2.718, 0.5], torch.bfloat16, False),
        ([1.36, 0.25], [2.718, 0.5], torch.bfloat16, False),  # scaled
        ([float("nan"), float("-inf")], [float("nan"), float("-inf")], torch.float16, True),
        ([float("nan"), 1.0], [2.0, 1.0], torch.float16, False),
        ([float("inf"), 1.0], [2.0, 1.0], torch.float16, False),
    ],
)
def test_logits_are_the_heads_to_its_rounding(given, expected, dtype, same):
    assert same_logits(torch.tensor([given]), torch.tensor([expected]).to(dtype)) is same
