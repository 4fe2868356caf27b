"""Rows that share a line of a batch: their positions, and masks that keep them apart."""

import torch
from torch import Tensor


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
