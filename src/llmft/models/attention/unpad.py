"""A padded batch -> its rows one behind the other in one line, without padding; and how rows of lines stand."""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.models.attention.packing_masks import row_starts

# Tokens of a row up to which rows attend side by side, padded for that alone: many small products take longer.
SHORT = 128
# The share of tokens in a batch's lines above which it does not pay to lay them in one (docs/performance.md).
FULL = 0.95

Lengths = list[list[int]]


class SequenceLengths(NamedTuple):
    """The rows of the lines of one side: their lengths, and how short ones stand side by side."""

    lengths: Lengths
    beside: "PaddedLayout | None"


class PaddedLayout(NamedTuple):
    """Short rows, for attention side by side: R rows of L places, filled up with copies of their last tokens.

    Attributes:
        shape: R and L.
        tokens: [R * L], which of the lines' tokens stands at a place.
        places: [tokens], at which place a token stands.
        copies: [R, 1, 1, L], bool: where no token of the row stands.
    """

    shape: tuple[int, int]
    tokens: Tensor
    places: Tensor
    copies: Tensor


def in_one_line(batch: dict[str, Any], kept: Tensor, targets: Tensor) -> dict[str, Any]:
    """A batch with all its rows in one line, in their order, and without its padding.

    Args:
        batch: Of ``collate.training_batch``, of one or several rows a line.
        kept: [B, S], bool: where a token stands; padding is left out.
        targets: As the labels, bool: where one stands, or nothing to be learnt, but no padding.

    Returns:
        The same keys, [1, tokens]; ``rows`` and ``label_rows`` number the rows anew.
    """
    lines = torch.arange(len(kept), device=kept.device)[:, None] * (kept.shape[1] + targets.shape[1])
    rows = (lines + batch.get("rows", 0)).expand_as(kept)
    label_rows = (lines + batch.get("label_rows", 0)).expand_as(targets)
    line = {name: batch[name][kept][None] for name in ("input_ids", "attention_mask")}
    line |= {
        "labels": batch["labels"][targets][None],
        "rows": rows[kept][None],
        "label_rows": label_rows[targets][None],
    }
    return {**batch, **line}


def is_full(*sides: Tensor) -> bool:
    """Whether lines have so little padding (False) that leaving it out saves nothing."""
    return sum(int(side.sum()) for side in sides) > FULL * sum(side.numel() for side in sides)


def side_of(rows: Tensor) -> SequenceLengths:
    """How rows stand.

    Args:
        rows: [B, S], which row of its line a token belongs to.
    """
    found = lengths(rows)
    return SequenceLengths(found, beside(found))


def beside(lines: Lengths) -> PaddedLayout | None:
    """How rows stand side by side; None where one is too long for that to pay."""
    sizes = torch.tensor([size for line in lines for size in line])
    longest = int(sizes.max())
    if longest > SHORT:
        return None
    place, size = torch.arange(longest), sizes[:, None]
    tokens = (sizes.cumsum(0) - sizes)[:, None] + torch.minimum(place, size - 1)
    places = torch.arange(len(sizes) * longest).view(len(sizes), longest)[place < size]
    return PaddedLayout((len(sizes), longest), tokens.flatten(), places, (place >= size)[:, None, None])


def lengths(rows: Tensor) -> Lengths:
    """How many tokens each row of each line has, padding as a row of its own.

    Args:
        rows: [B, S].
    """
    edges = [[*starts.nonzero()[:, 0].tolist(), rows.shape[1]] for starts in row_starts(rows)]
    return [[end - start for start, end in pairwise(line)] for line in edges]
