"""Encoded rows -> the loss of each row's answer, without holding logits of more than one batch."""

from collections.abc import Iterator, Sequence

import torch

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import EncodedExample
from llmft.generation.generator import answering
from llmft.models.module import InstructionModule


def row_losses(
    module: InstructionModule, rows: Sequence[EncodedExample], pad_id: int, batch_tokens: int
) -> list[tuple[float, int]]:
    """Nats of each row's supervised tokens, summed, and their number; in the order of the rows.

    Args:
        module: The model under its family's ``predict``.
        rows: Unpadded.
        pad_id: Fills up short rows of a batch.
        batch_tokens: rows x longest row of a batch.
    """
    found: dict[int, tuple[float, int]] = {}
    with answering(module.model):
        for chosen in _by_length([sum(row.size) for row in rows], batch_tokens):
            batch = training_batch([[rows[i]] for i in chosen], pad_id)
            on_device = {k: v.to(module.model.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            logits, targets, places = module.predict(on_device)
            losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none").double()
            nats = torch.zeros(len(chosen), dtype=torch.float64, device=losses.device)
            nats.index_add_(0, places.nonzero()[:, 0], losses)
            found.update(zip(chosen, zip(nats.tolist(), places.sum(1).tolist(), strict=True), strict=True))
    return [found[i] for i in range(len(rows))]


def _by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[row] > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
