"""Sequences of a causal model that are decoded together, with their keys and values: start, join, leave."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from llmft.data.batching.collate import generation_batch
from llmft.generation.prefix_cache import States
from llmft.generation.stream import Stream
from llmft.utils.device import sent


class Batch(NamedTuple):
    """Sequences of a causal model between two steps.

    ``ids`` and ``mask`` [B, S], the mask on the CPU; padding is on the left, or between a prefix whose keys and values were
    known and the rest of the prompt. ``cache`` holds S - 1 positions; before the first step, those of the known
    prefixes, or it is None.
    """

    streams: list[Stream]
    ids: torch.Tensor
    mask: torch.Tensor
    cache: Any


class Prefix(NamedTuple):
    """The first ``length`` tokens of a prompt, with their keys and values (None of length 0)."""

    length: int
    states: States | None


def cache_of(model: Any, layers: States) -> DynamicCache:
    """A cache of transformers with these keys and values."""
    cache = DynamicCache(config=model.config)
    plain: Any = cache.layers  # ``DynamicLayer``s, as ``Decoder.can_join`` has checked
    for layer, (keys, values) in zip(plain, layers, strict=True):
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys.to(model.device), values.to(model.device)
    return cache


def started(streams: Sequence[Stream], prefixes: Sequence[Prefix], pad_id: int, model: Any) -> Batch:
    """A batch before its first step, which computes the prompts behind their prefixes.

    Args:
        streams: The sequences.
        prefixes: One for each, shorter than its prompt. Equal ones are the same object, and take no memory of their own.
        pad_id: Token id of padding.
        model: A transformers or peft model.
    """
    both = list(zip(streams, prefixes, strict=True))
    parts = [generation_batch([s.prompt[known.length :] for s, known in both], pad_id, pad_left=True)]
    cache, width = None, max(known.length for known in prefixes)
    if width:
        parts.insert(0, generation_batch([s.prompt[: known.length] for s, known in both], pad_id, pad_left=True))
        cache = cache_of(model, side_by_side(prefixes, width))
    ids, mask = (torch.cat([part[name] for part in parts], 1) for name in ("input_ids", "attention_mask"))
    return Batch(list(streams), sent(ids, model.device), mask, cache)


def side_by_side(prefixes: Sequence[Prefix], width: int) -> States:
    """Keys and values of all rows [B, H, width, D], padded on the left."""
    first = prefixes[0].states
    if first and all(known.states is first for known in prefixes):
        return [tuple(one.expand(len(prefixes), -1, -1, -1) for one in layer) for layer in first]
    some = next(known.states for known in prefixes if known.states)
    nothing = [tuple(one[:, :, :0] for one in layer) for layer in some]
    rows = [known.states or nothing for known in prefixes]
    return [
        tuple(torch.cat([pad(one, (0, 0, width - one.shape[2], 0)) for one in each]) for each in zip(*layers, strict=True))
        for layers in zip(*rows, strict=True)
    ]  # fmt: skip


def running(batch: Batch) -> Batch | None:
    """The sequences that have not ended, without padding that none of them needs."""
    rows = [row for row, stream in enumerate(batch.streams) if stream.reason is None]
    if not rows:
        return None
    mask = batch.mask[rows]
    spare = mask.shape[1] - int(mask.sum(dim=1).max())
    if not spare and len(rows) == len(batch.streams):
        return batch
    streams, index = [batch.streams[row] for row in rows], sent(torch.tensor(rows), batch.ids.device)
    ids = batch.ids[index]
    if spare == int(mask.argmax(dim=1).min()):
        for layer in batch.cache.layers:
            layer.keys, layer.values = layer.keys[index, :, spare:], layer.values[index, :, spare:]
        return Batch(streams, ids[:, spare:], mask[:, spare:], batch.cache)
    order = mask.argsort(dim=1, stable=True)[:, spare:]  # the padding between prefix and rest goes to the left
    mask, order = mask.gather(1, order), sent(order, batch.ids.device)
    at = order[:, None, :-1, None]
    for layer in batch.cache.layers:
        layer.keys, layer.values = (
            states[index].gather(2, at.expand(-1, states.shape[1], -1, states.shape[3]))
            for states in (layer.keys, layer.values)
        )
    return Batch(streams, ids.gather(1, order), mask, batch.cache)


def joined(one: Batch | None, other: Batch | None) -> Batch | None:
    """Two batches as one, the shorter one with more padding."""
    if one is None or other is None:
        return one or other
    width = max(one.ids.shape[1], other.ids.shape[1])
    wide, more = _padded(one, width), _padded(other, width)
    for layer, new in zip(wide.cache.layers, more.cache.layers, strict=True):
        layer.keys, layer.values = torch.cat([layer.keys, new.keys]), torch.cat([layer.values, new.values])
    streams = [*wide.streams, *more.streams]
    return Batch(streams, torch.cat([wide.ids, more.ids]), torch.cat([wide.mask, more.mask]), wide.cache)


def _padded(batch: Batch, width: int) -> Batch:
    by = width - batch.ids.shape[1]
    if not by:
        return batch
    for layer in batch.cache.layers:
        layer.keys, layer.values = (pad(states, (0, 0, by, 0)) for states in (layer.keys, layer.values))
    return batch._replace(ids=pad(batch.ids, (by, 0)), mask=pad(batch.mask, (by, 0)))
