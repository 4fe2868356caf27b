"""Logits and loss of each example's answer, with the logits of only one batch in memory."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llmft.data.batching.collate import training_batch
from llmft.data.batching.sampler import length_batches
from llmft.data.tokenization.codec import EncodedExample
from llmft.models.forward import Forward
from llmft.utils.device import to_device
from llmft.utils.modules import eval_mode


class BatchLogits(NamedTuple):
    """Logits of the supervised positions of a batch.

    Attributes:
        rows: Indices of the batch's examples.
        logits: [N, V], float32, in the order of the examples and their tokens.
        targets: [N].
        lengths: Number of supervised positions of each example; their sum is N.
    """

    rows: list[int]
    logits: Tensor
    targets: Tensor
    lengths: list[int]


def supervised_logits(
    forward: Forward, rows: Sequence[EncodedExample], pad_id: int, batch_tokens: int
) -> Iterator[BatchLogits]:
    """Yield the logits of the supervised positions, batch by batch, in eval mode and without gradients.

    Args:
        forward: The model.
        rows: Encoded examples, unpadded.
        pad_id: Padding token id.
        batch_tokens: Maximum size of a batch, examples times the longest example.
    """
    for chosen in length_batches([sum(row.size) for row in rows], max_tokens=batch_tokens):
        batch = training_batch([[rows[i]] for i in chosen], pad_id)
        with eval_mode(forward.model), torch.inference_mode():
            logits, targets, places = forward.forward_targets(to_device(batch, forward.device))
            found = BatchLogits(chosen, logits.float(), targets, places.counts())
        yield found


def row_losses(
    forward: Forward, rows: Sequence[EncodedExample], pad_id: int, batch_tokens: int
) -> list[tuple[float, int]]:
    """Cross-entropy in nats summed over each example's supervised tokens, and their number; in order.

    The arguments are those of ``supervised_logits``.
    """
    found: dict[int, tuple[float, int]] = {}
    for batch in supervised_logits(forward, rows, pad_id, batch_tokens):
        losses = torch.nn.functional.cross_entropy(batch.logits, batch.targets, reduction="none").cpu().double()
        nats = [part.sum().item() for part in losses.split(batch.lengths)]
        found.update(zip(batch.rows, zip(nats, batch.lengths, strict=True), strict=True))
    return [found[i] for i in range(len(rows))]
