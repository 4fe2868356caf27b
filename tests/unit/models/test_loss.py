"""Losses against numbers by hand."""

import math

import pytest
import torch

from llmft.callbacks.perplexity import perplexity
from llmft.models.chunked_head import chunked_cross_entropy_sum
from llmft.models.loss import Positions, TokenLoss, head_at_positions, supervised, token_loss_sum


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
