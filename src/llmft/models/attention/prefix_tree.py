"""Examples that begin alike as a tree of segments: what several examples share is a segment of its own, computed once.

A batch of instruction data shares a preamble, a system prompt or earlier turns. In a causal model the hidden states, keys and
values of such a prefix depend on nothing that follows, so they are equal in all examples that begin with it; its gradient is
the sum over these examples.

Shapes: U tokens in the flat sequence of all examples (``packing.unpad``), T of them after sharing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from llmft.data.tokenization.codec import IGNORED
from llmft.models.attention.packing import lengths

# Tokens that a shared segment must save to be worth an attention call of its own (docs/performance.md).
LEAST = 16
# The share of a batch's tokens that sharing must save; for less, the attention over segments costs what it saves.
WORTH = 0.05
# The tensors of a flat sequence.
OF_TOKENS = ("input_ids", "attention_mask", "labels", "weights", "rows", "label_rows")


class Segment(NamedTuple):
    """Consecutive tokens that are computed once, for one example or several.

    Attributes:
        parent: Index of the segment before it; -1 if it begins its examples.
        start: Position of its first token, which is the number of tokens before it.
        end: Position after its last token.
        example: One of the examples that it belongs to.
    """

    parent: int
    start: int
    end: int
    example: int


def prefix_tree(ids: Sequence[np.ndarray], limits: Sequence[int], least: int = LEAST) -> list[Segment]:
    """Shared segments, parents first, then the rest of each example, in order.

    Args:
        ids: Token ids of each example.
        limits: How many tokens an example may share, fewer than it has.
        least: Tokens that a shared segment must save.
    """
    table = np.zeros((len(ids), max(limits) + 1), ids[0].dtype)
    for row, limit, example in zip(table, limits, ids, strict=True):
        row[:limit] = example[:limit]
    shared: list[Segment] = []
    parents, starts = [-1] * len(ids), [0] * len(ids)
    groups = [(list(range(len(ids))), -1, 0)]
    while groups:
        members, parent, start = groups.pop()
        end = _common(table[members], min(limits[member] for member in members))
        if (end - start) * (len(members) - 1) >= least:
            shared.append(Segment(parent, start, end, members[0]))
            parent, start = len(shared) - 1, end
        following: dict[int, list[int]] = {}
        for member in members:
            parents[member], starts[member] = parent, start
            if limits[member] > end:
                following.setdefault(int(table[member, end]), []).append(member)
        groups += [(group, parent, start) for group in following.values() if len(group) > 1]
    return shared + [Segment(parents[n], starts[n], len(example), n) for n, example in enumerate(ids)]


def _common(table: np.ndarray, limit: int) -> int:
    """Length of the common prefix of the rows, at most ``limit``."""
    differs = (table[:, :limit] != table[0, :limit]).any(axis=0)
    return int(differs.argmax()) if differs.any() else limit


def sharing_limits(labels: Sequence[np.ndarray]) -> list[int]:
    """How many tokens each example may share: all labels, and the first position with a loss, stay its own.

    Position t predicts the label at t + 1. If the first supervised label is at f, position f - 1 is the first one with a
    loss, and a prefix of at most f - 1 tokens has none: no target and no weight has to change. The next token is predicted
    from the prefix too, but it has no label.
    """
    limits = []
    for example in labels:
        supervised = np.flatnonzero(example != IGNORED)
        # without labels (a filler), the last token stays, so that each example has one
        limits.append(max(0, int(supervised[0]) - 1) if len(supervised) else len(example) - 1)
    return limits


def share_prefixes(flat: dict[str, Any], least: int = LEAST, worth: float = WORTH) -> dict[str, Any] | None:
    """Share the prefixes of the examples of a flat sequence; None if that saves too little.

    Args:
        flat: From ``packing.unpad``, of a causal model: [1, U].
        least: Tokens that a shared segment must save.
        worth: The share of the tokens that all must save.

    Returns:
        The same keys, [1, T]; ``rows`` and ``label_rows`` number the segments; ``positions`` [1, T] are position ids;
        ``segments`` is the tree.
    """
    sizes = lengths(flat["rows"])[0]
    ends = np.cumsum(sizes)
    ids, labels = (np.split(flat[name][0].numpy(), ends[:-1]) for name in ("input_ids", "labels"))
    segments = prefix_tree(ids, sharing_limits(labels), least)
    counts = torch.tensor([segment.end - segment.start for segment in segments])
    if int(counts.sum()) > (1 - worth) * int(ends[-1]):
        return None
    positions = torch.cat([torch.arange(segment.start, segment.end) for segment in segments])
    offsets = torch.tensor([int(ends[segment.example]) - sizes[segment.example] for segment in segments])
    kept = positions + offsets.repeat_interleave(counts)
    numbers = torch.arange(len(segments)).repeat_interleave(counts)[None]
    tensors = {name: flat[name][:, kept] for name in OF_TOKENS if name in flat}
    tensors |= {"rows": numbers, "label_rows": numbers, "positions": positions[None]}
    return flat | tensors | {"segments": segments}


def alike(flat: dict[str, Any], segments: Sequence[Segment]) -> dict[str, Any] | None:
    """Two supervised examples that share their first segment, as a flat sequence; None if there are none.

    Args:
        flat: The sequence before sharing, [1, U].
        segments: Its tree.
    """
    sizes = lengths(flat["rows"])[0]
    trained = [bool((labels != IGNORED).any()) for labels in flat["labels"][0].split(sizes)]
    roots: list[int] = []
    members: dict[int, list[int]] = {}
    for number, segment in enumerate(segments):
        roots.append(number if segment.parent < 0 else roots[segment.parent])
        if number >= len(segments) - len(sizes) and trained[segment.example]:
            members.setdefault(roots[number], []).append(segment.example)
    pair = next((examples[:2] for examples in members.values() if len(examples) > 1), None)
    if pair is None:
        return None
    numbers = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    kept = torch.isin(numbers, torch.tensor(pair))
    return flat | {name: value[:, kept] for name, value in flat.items() if name in OF_TOKENS}
