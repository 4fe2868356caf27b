"""Rows that lie one behind the other, in one line, without padding: attention of each row by itself, on a CPU.

All else a transformer does is done token by token, so that nothing is computed for padding, and no score between two rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.models.packing import row_starts

# Tokens of a row up to which eager attention is the faster one in bfloat16 on a CPU (benchmarks/means.py).
EAGER_UP_TO = 384
# The largest share of tokens in a batch's lines at which it pays to lay them in one: attention by rows costs a twentieth more.
FULL = 0.92
NAME = "llmft_row_by_row"

Lengths = list[list[int]]


class Rows(NamedTuple):
    """How long the rows of each line are, padding as a row of its own; of a seq2seq model also those of the encoder's side."""

    own: Lengths
    sources: Lengths | None


_rows: ContextVar[Rows] = ContextVar("rows")


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


def can_be_alone(config: Any, length: int) -> bool:
    """Whether attention is no more than a softmax over a row's tokens, which is all that is done row by row.

    Args:
        config: Of a transformers model.
        length: Tokens of the longest row.
    """
    window = getattr(config, "sliding_window", None)
    capped = getattr(config, "attn_logit_softcapping", None)
    return capped is None and (window is None or window >= length) and not hasattr(config, "attention_chunk_size")


@contextmanager
def rows_alone(model: Any, rows: Tensor, sources: Tensor | None) -> Iterator[None]:
    """The attention ``NAME`` and what it must know, for a forward pass.

    Args:
        model: Of transformers, or around one.
        rows: [B, T], which row of its line a token belongs to; of a seq2seq model's decoder.
        sources: [B, S], the same of its encoder; None for a causal model.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)  # its masks are not registered: none are made
    told = _rows.set(Rows(lengths(rows), None if sources is None else lengths(sources)))
    biased = [module for module in model.modules() if hasattr(module, "compute_bias")] if sources is not None else []
    for module in biased:
        module.compute_bias = _bias_of(module)
        # else T5 would make zeros of the size of all targets times all sources
        module.has_relative_attention_bias = True
    try:
        yield
    finally:
        _rows.reset(told)
        for module in biased:
            del module.compute_bias
            module.has_relative_attention_bias = hasattr(module, "relative_attention_bias")


def lengths(rows: Tensor) -> Lengths:
    """How many tokens each row of each line has, padding as a row of its own.

    Args:
        rows: [B, S].
    """
    edges = [[*starts.nonzero()[:, 0].tolist(), rows.shape[1]] for starts in row_starts(rows)]
    return [[end - start for start, end in pairwise(line)] for line in edges]


def _bias_of(attention: Any) -> Any:
    """T5's bias by distance, which is the same in every row: for the longest one, [1, H, L, L]; nothing across, [1, 1, 1, 1]."""

    def compute_bias(*_: Any, device: Any = None, **__: Any) -> Tensor:
        if not hasattr(attention, "relative_attention_bias"):
            return torch.zeros(1, 1, 1, 1, device=device)
        told = _rows.get()
        longest = max(map(max, told.own if attention.is_causal else told.sources or told.own))
        return type(attention).compute_bias(attention, longest, longest, device=device)

    return compute_bias


def _attention(module: Any, query: Tensor, key: Tensor, value: Tensor, _: Any, **more: Any) -> Any:
    """Query [B, H, T, D], key and value [B, H or fewer, S, D], to [B, T, H, D].

    A line of 1,024 tokens with four rows has a quarter of its scores inside rows; a mask would have the others computed too.
    """
    own, sources = _rows.get()
    causal = sources is None or module.is_causal
    theirs = own if sources is None or causal else sources
    mine = own if causal or module.is_decoder else theirs
    lines = []
    for number, (ours, other) in enumerate(map(_matched, mine, theirs)):
        parts = [
            x[number : number + 1].split(sizes, dim=2) for x, sizes in ((query, ours), (key, other), (value, other))
        ]
        lines += [torch.cat([_alone(module, *row, causal=causal, **more) for row in zip(*parts, strict=True)], dim=1)]
    return torch.cat(lines), None


def _matched(ours: list[int], theirs: list[int]) -> tuple[list[int], list[int]]:
    """The padding at a line's end is a row of its own, and may be there on one side alone."""
    rows = max(len(ours), len(theirs))
    return ours + [0] * (rows - len(ours)), theirs + [0] * (rows - len(theirs))


def _alone(module: Any, query: Tensor, key: Tensor, value: Tensor, *, causal: bool, **more: Any) -> Tensor:
    """A row, [1, H, T, D], to [1, T, H, D]."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    length, bias = query.shape[2], more.pop("position_bias", None)
    if bias is not None and bias.shape[-1] == 1:
        bias = None
    if not length or not key.shape[2]:  # padding
        return torch.zeros_like(query).transpose(1, 2)
    if bias is None and (query.dtype != torch.bfloat16 or max(length, key.shape[2]) > EAGER_UP_TO):
        return sdpa_attention_forward(module, query, key, value, None, **{**more, "is_causal": causal and length > 1})[
            0
        ]
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scaling = more.get("scaling") or query.shape[-1] ** -0.5
    scores = query @ key.transpose(2, 3) * scaling
    if bias is not None:
        scores = scores + bias[..., :length, :length]
    if causal:
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    weights = torch.nn.functional.dropout(weights, more.get("dropout", 0.0), module.training)
    return (weights @ value).transpose(1, 2)
