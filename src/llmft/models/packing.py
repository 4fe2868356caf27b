"""Rows that share a line of a batch: masks that keep them apart, and the proof on a real line that they do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llmft.collate import training_batch
from llmft.encoding import Encoded
from llmft.errors import UserError

if TYPE_CHECKING:
    from llmft.models.base import InstructionModule

# Largest difference between packed and single logits, relative to the largest logit. Measured: 4e-7 to 1e-5 in float32
# where rows are kept apart; 0.07 to 0.6 (times the size of small logits) where one sees another.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


def positions_in_rows(rows: Tensor) -> Tensor:
    """Positions that start at 0 in each row of a line.

    Args:
        rows: [B, S], which row of the line a token belongs to; -1 for padding, which counts as a row of its own.

    Returns:
        [B, S], int64.
    """
    index = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    return index - torch.where(row_starts(rows), index, 0).cummax(dim=1).values


def row_starts(rows: Tensor) -> Tensor:
    """Where a row begins: [B, S], bool."""
    starts = torch.ones_like(rows, dtype=torch.bool)
    starts[:, 1:] = rows[:, 1:] != rows[:, :-1]
    return starts


def block_mask(queries: Tensor, keys: Tensor, dtype: torch.dtype, *, causal: bool = False) -> Tensor:
    """A mask to be added to attention scores: a token sees its own row and no other.

    Float and not bool, because eager attention adds what it gets.

    Args:
        queries: [B, T], which row of the line a token belongs to; -1 for padding (it sees the padding).
        keys: [B, S], the same.
        dtype: Of the scores.
        causal: Whether a token sees no later one (T = S).

    Returns:
        [B, 1, T, S], 0 or the smallest number of ``dtype``.
    """
    seen = queries[:, :, None] == keys[:, None, :]
    if causal:
        seen = seen & torch.ones_like(seen[0]).tril()
    # padding of a side whose other side has none must see something: a softmax over nothing is NaN
    seen = seen | ~seen.any(dim=-1, keepdim=True)
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


@torch.no_grad()
def check_packing(module: "InstructionModule", line: Sequence[Encoded], pad_id: int) -> float:
    """Compare the logits of a packed line with those of its rows alone.

    Args:
        module: The module that is about to be trained.
        line: Rows that share a line.
        pad_id: The pad id.

    Returns:
        The largest difference, relative to the largest logit.

    Raises:
        UserError: They differ, so that rows would see each other.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        packed = _logits(module, [line], pad_id)
        single = torch.cat([_logits(module, [[row]], pad_id) for row in line])
    finally:
        for part, mode in modes:
            part.training = mode
    difference = float((packed - single).abs().max() / single.abs().max())
    if not difference <= TOLERANCE.get(packed.dtype, 5e-2):
        raise UserError(
            f"data.batching=packed: this model lets packed rows see each other (logits of {line[0].place} and {len(line) - 1} "
            f"more rows differ by {difference:.2g} of the largest, packed against alone); use data.batching=tokens or grouped"
        )
    return difference


def _logits(module: "InstructionModule", lines: Sequence[Sequence[Encoded]], pad_id: int) -> Any:
    batch = training_batch(lines, pad_id)
    return module.predict({k: v.to(module.device) if isinstance(v, Tensor) else v for k, v in batch.items()})[0]
