"""The keys that the queries of a flat batch attend to, from the lengths of its examples, and the blocks of scores they make up.

The keys of a query are one range: those of its example, up to itself if causal. So the first and the last key of each query
are a whole mask, and say of a block of scores whether none, all or some of it is computed.

Shapes: n query tokens, m key tokens of N examples.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

BLOCK = 128


class Keys(NamedTuple):
    """The keys that each query attends to, [n]: from ``first`` to ``last``, both included, of ``total``. Neither ever falls."""

    first: Tensor
    last: Tensor
    total: int

    def extended(self, queries: int) -> "Keys":
        """With padding up to this number of queries, which attends to what the last token does."""
        missing = queries - len(self.first)
        first, last = (torch.cat([x, x[-1:].expand(missing)]) for x in self[:2])
        return Keys(first, last, self.total)


def key_ranges(offsets: Sequence[Tensor], queries: int, keys: int, *, causal: bool, window: int | None = None) -> Keys:
    """The keys of each query: those of its example, in causal attention none after it, and ``window`` of them at most.

    Args:
        offsets: ``cu_seq_lens`` of queries and keys, [N + 1] each.
        queries: Number of query tokens, n.
        keys: Number of key tokens, m.
        causal: Whether a token attends to no later token (n = m).
        window: How many keys a causal query attends to, itself included; None for no limit.
    """
    at = torch.arange(queries, dtype=torch.int32, device=offsets[0].device)
    example = torch.searchsorted(offsets[0][1:].contiguous(), at, right=True)
    first, last = offsets[1][example], offsets[1][example + 1] - 1
    if causal:
        last = at
        first = first if window is None else torch.maximum(first, at - (window - 1))
    return Keys(first, last, keys)


def block_mask(keys: Keys) -> Any:
    """The ranges as a ``BlockMask``, without scores of tokens times tokens, of which ``create_block_mask`` would make all.

    Args:
        keys: The keys of each query.
    """
    from torch.nn.attention.flex_attention import BlockMask

    first, last, total = keys
    rows = [x.view(-1, BLOCK) for x in keys.extended(-(-len(first) // BLOCK) * BLOCK)[:2]]
    (low, least), (most, high) = ((x[:, :1], x[:, -1:]) for x in rows)
    begin = torch.arange(0, total, BLOCK, device=first.device)
    end = (begin + BLOCK).clamp(max=total) - 1
    whole = (least <= begin) & (end <= most)
    some = (low <= end) & (begin <= high) & ~whole

    def mask_mod(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (first[query] <= key) & (key <= last[query])

    blocks = (*_listed(some), *_listed(whole))
    return BlockMask.from_kv_blocks(*blocks, BLOCK_SIZE=BLOCK, mask_mod=mask_mod, seq_lengths=(len(first), total))


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Of blocks [Q, K], bool: how many are in each row, [1, 1, Q], and their columns, before the others, [1, 1, Q, K]."""
    each = blocks[None, None].int()
    return each.sum(-1, dtype=torch.int32), torch.argsort(each, dim=-1, descending=True, stable=True).int()
