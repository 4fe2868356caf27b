"""KL divergence of a tuned model from its base, from the base's most probable tokens at each position.

The base's log-probabilities are kept between two forward passes: full fine-tuning overwrites the base in between. All of them
would take gigabytes (4,000 positions of a vocabulary of 128,000 are 2 GB in float32). Kept are those of the ``TOP`` most probable
tokens; all others are one bucket. The KL divergence of such a coarser distribution is a lower bound of the full one (data
processing inequality), and the difference is at most of the order of the bucket's probability, which is reported with it. A
vocabulary of up to ``TOP`` tokens loses nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llmft.data.tokenization.codec import EncodedExample
from llmft.evaluation.row_loss import supervised_logits
from llmft.models.forward import Forward

TOP = 1024
# Of a sum of float32 probabilities.
PRECISION = 1e-6


class TopTokens(NamedTuple):
    """The most probable tokens at each position of an answer, on the CPU.

    Attributes:
        ids: [N, K], int32.
        log_probs: [N, K], float32, descending.
    """

    ids: Tensor
    log_probs: Tensor

    @property
    def rest(self) -> Tensor:
        """Probability of all other tokens, [N], float64."""
        return _rest(self.log_probs.double())


def top_tokens(
    forward: Forward, rows: Sequence[EncodedExample], pad_id: int, batch_tokens: int, top: int = TOP
) -> list[TopTokens]:
    """The ``top`` most probable tokens at each supervised position of each example, in order.

    The other arguments are those of ``supervised_logits``.
    """
    found: dict[int, TopTokens] = {}
    for batch in supervised_logits(forward, rows, pad_id, batch_tokens):
        best = batch.logits.log_softmax(-1).topk(min(top, batch.logits.shape[-1]))
        parts = zip(best.indices.int().cpu().split(batch.lengths), best.values.cpu().split(batch.lengths), strict=True)
        found.update(zip(batch.rows, (TopTokens(*part) for part in parts), strict=True))
    return [found[i] for i in range(len(rows))]


def divergences(
    forward: Forward, rows: Sequence[EncodedExample], base: Sequence[TopTokens], pad_id: int, batch_tokens: int
) -> list[tuple[float, int]]:
    """KL(base || model) in nats, summed over the supervised positions of each example, and their number; in order.

    Args:
        forward: The tuned model.
        rows: Encoded examples, unpadded: the base's answers.
        base: The base's most probable tokens for the same examples.
        pad_id: Padding token id.
        batch_tokens: Maximum size of a batch, examples times the longest example.
    """
    found: dict[int, tuple[float, int]] = {}
    for batch in supervised_logits(forward, rows, pad_id, batch_tokens):
        ids = torch.cat([base[i].ids for i in batch.rows]).long()
        tuned = batch.logits.log_softmax(-1).gather(1, ids.to(batch.logits.device)).cpu()
        nats = kl_divergence(torch.cat([base[i].log_probs for i in batch.rows]), tuned)
        parts = [part.sum().item() for part in nats.split(batch.lengths)]
        found.update(zip(batch.rows, zip(parts, batch.lengths, strict=True), strict=True))
    return [found[i] for i in range(len(rows))]


def kl_divergence(base: Tensor, tuned: Tensor) -> Tensor:
    """KL(base || tuned) of two distributions, known for some tokens; the other tokens are one bucket.

    Args:
        base: Log-probabilities of the tokens in the base, [N, K].
        tuned: Those of the same tokens in the tuned model, [N, K].

    Returns:
        In nats, [N], float64.
    """
    base, tuned = base.double(), tuned.double()
    known = (base.exp() * (base - tuned)).sum(-1)
    rest, tuned_rest = _rest(base), _rest(tuned).clamp(min=PRECISION)
    return known + torch.xlogy(rest, rest) - torch.xlogy(rest, tuned_rest)


def _rest(log_probs: Tensor) -> Tensor:
    """Probability of the tokens that are not among ``log_probs``; below ``PRECISION`` it is 0."""
    rest = 1 - log_probs.exp().sum(-1)
    return rest.masked_fill(rest < PRECISION, 0)
