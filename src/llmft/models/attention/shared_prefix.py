"""Attention over shared prefixes on a CPU: a segment attends to the segments before it and, causally, to itself.

Next to ``varlen.py``, for the batches that ``prefix_tree.share_prefixes`` makes. Keys and values of a shared segment are
gathered for each segment after it, and autograd adds up their gradients.

Shapes: T tokens in the flat sequence, H heads, D head dimensions; in the padded batch of the last segments, R examples with L
queries and S keys each.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.models.attention.prefix_tree import Segment
from llmft.models.attention.varlen import Collect, PaddedLayout, Spread, attend, padded_layout
from llmft.utils.modules import outside_graphs

NAME = "llmft_shared_prefix"


class Span(NamedTuple):
    """A segment that attends on its own.

    Attributes:
        own: Its tokens.
        before: The tokens of the segments before it.
        hidden: [1, 1, own, before + own], bool: keys that a query does not attend to; None for the causal mask.
    """

    own: slice
    before: list[slice]
    hidden: Tensor | None


class Leaves(NamedTuple):
    """The last segments of all examples as one padded batch.

    Attributes:
        start: Their first token in the flat sequence; they are its end.
        queries: Padded layout of their own tokens.
        keys: [R * S], index of the token in each slot of the keys: those before the segment, then its own.
        hidden: [R, 1, L, S], bool: keys that a query does not attend to.
    """

    start: int
    queries: PaddedLayout
    keys: Tensor
    hidden: Tensor


class SharedLayout(NamedTuple):
    """Segments that attend one by one, in order, and those after them that attend in a padded batch."""

    spans: list[Span]
    leaves: Leaves | None


_layout: ContextVar[SharedLayout] = ContextVar("shared_prefix")


def shared_layout(segments: Sequence[Segment]) -> SharedLayout:
    """Layout of a tree: shared segments one by one, and what follows them in a padded batch if all of that is short.

    Args:
        segments: From ``prefix_tree.prefix_tree``.
    """
    ends = list(accumulate(segment.end - segment.start for segment in segments))
    slices = [slice(end - (segment.end - segment.start), end) for segment, end in zip(segments, ends, strict=True)]
    before: list[list[int]] = []
    for segment in segments:  # parents come first
        before.append([] if segment.parent < 0 else [*before[segment.parent], segment.parent])
    examples = max(segment.example for segment in segments) + 1
    shared = len(segments) - examples
    sizes = [part.stop - part.start for part in slices]
    queries = padded_layout([sizes[shared:]])
    alone = len(segments) if queries is None else shared
    spans = [_span(slices[n], [slices[m] for m in before[n]]) for n in range(alone)]
    if queries is None:
        return SharedLayout(spans, None)
    paths = [
        torch.cat([torch.arange(slices[m].start, slices[m].stop) for m in (*before[n], n)])
        for n in range(shared, len(segments))
    ]
    keys = torch.nn.utils.rnn.pad_sequence(paths, batch_first=True)
    positions = torch.arange(queries.shape[1]) + torch.tensor([segment.start for segment in segments[shared:]])[:, None]
    # a query that fills its row up attends too, to keys of its row or to padding; its output is dropped
    hidden = torch.arange(keys.shape[1]) > positions[:, :, None]
    return SharedLayout(spans, Leaves(slices[shared].start, queries, keys.flatten(), hidden[:, None]))


def _span(own: slice, before: list[slice]) -> Span:
    if not before:
        return Span(own, before, None)
    size = own.stop - own.start
    keys = size + sum(part.stop - part.start for part in before)
    return Span(own, before, torch.ones(size, keys, dtype=torch.bool).triu(keys - size + 1)[None, None])


@contextmanager
def shared_prefix_attention(segments: Sequence[Segment]) -> Iterator[None]:
    """Register the attention ``NAME`` and set the layout that it needs, for a forward pass.

    Args:
        segments: From ``prefix_tree.share_prefixes``.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(
        NAME, outside_graphs(_attention)
    )  # no mask function is registered, so no masks are made
    token = _layout.set(shared_layout(segments))
    try:
        yield
    finally:
        _layout.reset(token)


def _attention(module: Any, query: Tensor, key: Tensor, value: Tensor, _: Any, **kwargs: Any) -> Any:
    """Query [1, H, T, D], key and value [1, H or fewer, T, D], to [1, T, H, D]."""
    layout = _layout.get()
    parts = [_attend_alone(module, query, key, value, span, **kwargs) for span in layout.spans]
    if layout.leaves:
        parts.append(_attend_padded(module, query, key, value, layout.leaves, **kwargs))
    return torch.cat(parts, dim=1), None


def _attend_alone(module: Any, query: Tensor, key: Tensor, value: Tensor, span: Span, **kwargs: Any) -> Tensor:
    keys, values = (torch.cat([x[:, :, part] for part in (*span.before, span.own)], dim=2) for x in (key, value))
    causal = span.hidden is None
    return attend(module, query[:, :, span.own], keys, values, causal=causal, hidden=span.hidden, **kwargs)


def _attend_padded(module: Any, query: Tensor, key: Tensor, value: Tensor, leaves: Leaves, **kwargs: Any) -> Tensor:
    rows, size = leaves.queries.shape
    queries: Any = Spread.apply(query[0].transpose(0, 1)[leaves.start :], leaves.queries.tokens, leaves.queries.slots)
    kept = (x[0].transpose(0, 1) for x in (key, value))
    keys, values = (x.index_select(0, leaves.keys).unflatten(0, (rows, -1)).transpose(1, 2) for x in kept)
    queries = queries.unflatten(0, (rows, size)).transpose(1, 2)
    out = attend(module, queries, keys, values, causal=False, hidden=leaves.hidden, **kwargs)
    collected: Any = Collect.apply(out.flatten(0, 1), leaves.queries.slots)
    return collected[None]
