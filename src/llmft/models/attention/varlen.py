"""Rows that lie one behind the other, in one line, without padding: attention of each row by itself, on a CPU.

All else a transformer does is done token by token, so that nothing is computed for padding, and no score between two rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.models.attention.unpad import PaddedLayout, SequenceLengths, side_of

# Tokens of a row up to which eager attention is the faster one in bfloat16 on a CPU (benchmarks/means.py).
EAGER_UP_TO = 384
NAME = "llmft_row_by_row"


class VarlenContext(NamedTuple):
    """How long the rows of each line are, padding as a row of its own; of a seq2seq model also those of the encoder's side."""

    own: SequenceLengths
    sources: SequenceLengths | None


_rows: ContextVar[VarlenContext] = ContextVar("rows")


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
    told = _rows.set(VarlenContext(side_of(rows), None if sources is None else side_of(sources)))
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


def _bias_of(attention: Any) -> Any:
    """T5's bias by distance, which is the same in every row: for the longest one, [1, H, L, L]; nothing across, [1, 1, 1, 1]."""

    def compute_bias(*_: Any, device: Any = None, **__: Any) -> Tensor:
        if not hasattr(attention, "relative_attention_bias"):
            return torch.zeros(1, 1, 1, 1, device=device)
        told = _rows.get()
        side = told.own if attention.is_causal else told.sources or told.own
        longest = max(map(max, side.lengths))
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
    if mine.beside and theirs.beside and mine.beside.shape[0] == theirs.beside.shape[0]:
        return _side_by_side(module, (query, key, value), mine.beside, theirs.beside, causal=causal, **more), None
    lines = []
    for number, (ours, other) in enumerate(map(_matched, mine.lengths, theirs.lengths)):
        parts = [
            x[number : number + 1].split(sizes, dim=2) for x, sizes in ((query, ours), (key, other), (value, other))
        ]
        lines += [torch.cat([_alone(module, *row, causal=causal, **more) for row in zip(*parts, strict=True)], dim=1)]
    return torch.cat(lines), None


def _side_by_side(
    module: Any, heads: Sequence[Tensor], mine: PaddedLayout, theirs: PaddedLayout, *, causal: bool, **more: Any
) -> Tensor:
    """Query, key and value [B, H, T or S, D], to [B, T, H, D]; no token sees a copy, which stand on the right."""
    lines, parts = (heads[0].shape[0], heads[0].shape[2]), []
    for x, rows in zip(heads, (mine, theirs, theirs), strict=True):
        spread: Any = _Spread.apply(x.transpose(1, 2).flatten(0, 1), rows.tokens, rows.places)
        parts.append(spread.unflatten(0, rows.shape).transpose(1, 2))
    made = _alone(module, *parts, causal=causal, hidden=None if causal else theirs.copies, **more)
    collected: Any = _Collect.apply(made.flatten(0, 1), mine.places)
    return collected.unflatten(0, lines)


class _Spread(torch.autograd.Function):
    """Tokens to their places. No gradient comes from a copy, so that none is added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tokens: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        """Of the tokens."""
        return slopes[0].index_select(0, ctx.saved_tensors[0]), None, None


class _Collect(torch.autograd.Function):
    """What stands at the places, back to the lines; copies are left."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.shape = x.shape
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        """Of the places; nothing for copies."""
        return slopes[0].new_zeros(ctx.shape).index_copy_(0, ctx.saved_tensors[0], slopes[0]), None


def _matched(ours: list[int], theirs: list[int]) -> tuple[list[int], list[int]]:
    """The padding at a line's end is a row of its own, and may be there on one side alone."""
    rows = max(len(ours), len(theirs))
    return ours + [0] * (rows - len(ours)), theirs + [0] * (rows - len(theirs))


def _alone(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool,
    hidden: Tensor | None = None,
    **more: Any,
) -> Tensor:
    """Rows as long as each other, [R, H, T, D] and [R, H or fewer, S, D], to [R, T, H, D].

    Args:
        module: The attention.
        query: Of T tokens.
        key: Of S tokens.
        value: Of the same.
        causal: Whether a token sees no later one.
        hidden: [R, 1, 1, S], bool: keys that nobody sees.
        more: As the model gives it.
    """
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    length, bias = query.shape[2], more.pop("position_bias", None)
    if bias is not None and bias.shape[-1] == 1:
        bias = None
    if not length or not key.shape[2]:  # padding
        return torch.zeros_like(query).transpose(1, 2)
    plain = bias is None and hidden is None
    if plain and (query.dtype != torch.bfloat16 or max(length, key.shape[2]) > EAGER_UP_TO):
        return sdpa_attention_forward(module, query, key, value, None, **{**more, "is_causal": causal and length > 1})[
            0
        ]
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scaling = more.get("scaling") or query.shape[-1] ** -0.5
    scores = query @ key.transpose(2, 3) * scaling
    if bias is not None:
        scores = scores + bias[..., :length, : key.shape[2]]
    if hidden is not None:
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    if causal:
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    weights = torch.nn.functional.dropout(weights, more.get("dropout", 0.0), module.training)
    return (weights @ value).transpose(1, 2)
