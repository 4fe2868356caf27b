"""KL divergence by hand; log2 = 0.6931."""

import pytest
import torch

from llmft.evaluation.retention.divergence import TopTokens, kl_divergence


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


@pytest.mark.parametrize(
    ("base", "tuned", "nats"),
    [
        ((0.5, 0.25, 0.25), (0.25, 0.5, 0.25), 0.1733),  # 0.5 log 2 - 0.25 log 2
        ((0.9, 0.1), (0.5, 0.5), 0.3681),  # 0.9 log 1.8 + 0.1 log 0.2; the other direction is 0.5108
        ((0.5,), (0.8,), 0.2231),  # the rest, 0.5 and 0.2, is one bucket: 0.5 log 0.625 + 0.5 log 2.5
        ((0.5, 0.5), (0.5, 0.1), 0.8047),  # no rest in the base: 0.5 log 5
        ((0.3, 0.3), (0.3, 0.3), 0.0),
    ],
)
def test_kl_from_base_to_tuned(base, tuned, nats):
    assert kl_divergence(logs(*base), logs(*tuned)).item() == pytest.approx(nats, abs=1e-4)


def test_a_base_that_is_certain_gives_the_loss_of_its_token():
    certain = torch.tensor([[0.0, -200.0]])
    assert kl_divergence(certain, logs(0.125, 0.875)).item() == pytest.approx(2.0794, abs=1e-4)  # log 8


def test_the_rest_is_what_is_not_listed():
    assert TopTokens(torch.tensor([[3, 1]]), logs(0.5, 0.3)).rest.tolist() == pytest.approx([0.2])
