"""Logits and loss of each example's answer, batch by batch, with the kernels of a training."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.data.batching.collate import training_batch
from llmft.data.batching.sampler import length_batches
from llmft.data.tokenization.codec import EncodedExample
from llmft.models.forward import Forward
from llmft.models.loss import supervised
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
    for chosen, batch, lengths in _batches(forward, rows, pad_id, batch_tokens):
        with eval_mode(forward.model), torch.inference_mode():
            logits, targets, _ = forward.forward_targets(forward.unpad_if_faster(batch))
            found = BatchLogits(chosen, logits.float(), targets, lengths)
        yield found


def row_losses(
    forward: Forward, rows: Sequence[EncodedExample], pad_id: int, batch_tokens: int
) -> list[tuple[float, int]]:
    """Cross-entropy in nats summed over each example's supervised tokens, and their number; in order.

    The arguments are those of ``supervised_logits``.
    """
    found: dict[int, tuple[float, int]] = {}
    for chosen, batch, lengths in _batches(forward, rows, pad_id, batch_tokens):
        with eval_mode(forward.model), torch.inference_mode():
            losses = forward.token_losses(batch).cpu().double()
        nats = [part.sum().item() for part in losses.split(lengths)]
        found.update(zip(chosen, zip(nats, lengths, strict=True), strict=True))
    return [found[i] for i in range(len(rows))]


def _batches(
    forward: Forward, rows: Sequence[EncodedExample], pad_id: int, batch_tokens: int
) -> Iterator[tuple[list[int], dict[str, Any], list[int]]]:
    """Indices of a batch's examples, the batch, and the number of supervised positions of each example."""
    for chosen in length_batches([sum(row.size) for row in rows], max_tokens=batch_tokens):
        batch = training_batch([[rows[i]] for i in chosen], pad_id, weighted=False)
        lengths = supervised(forward.targets(batch)).sum(1).tolist()
        yield chosen, to_device(batch, forward.device), lengths
