"""Loss of each example's answer, with the logits of only one batch in memory."""

from collections.abc import Sequence

import torch

from llmft.data.batching.collate import training_batch
from llmft.data.batching.sampler import length_batches
from llmft.data.tokenization.codec import EncodedExample
from llmft.models.forward import Forward
from llmft.utils.device import to_device
from llmft.utils.modules import eval_mode


def row_losses(
    forward: Forward, rows: Sequence[EncodedExample], pad_id: int, batch_tokens: int
) -> list[tuple[float, int]]:
    """Cross-entropy in nats summed over each example's supervised tokens, and their number; in order.

    Args:
        forward: The model.
        rows: Encoded examples, unpadded.
        pad_id: Padding token id.
        batch_tokens: Maximum size of a batch, examples times the longest example.
    """
    found: dict[int, tuple[float, int]] = {}
    with eval_mode(forward.model), torch.inference_mode():
        for chosen in length_batches([sum(row.size) for row in rows], max_tokens=batch_tokens):
            batch = training_batch([[rows[i]] for i in chosen], pad_id)
            logits, targets, places = forward.forward_targets(to_device(batch, forward.device))
            losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none").double()
            nats = torch.zeros(len(chosen), dtype=torch.float64, device=losses.device)
            nats.index_add_(0, places.nonzero()[:, 0], losses)
            found.update(zip(chosen, zip(nats.tolist(), places.sum(1).tolist(), strict=True), strict=True))
    return [found[i] for i in range(len(rows))]
