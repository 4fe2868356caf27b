"""The attention of a batch: which kernel, by the length of its lines; packed rows of a causal model on a CPU each by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from llmft.models.packing import row_starts

# Tokens of a line up to which eager attention is the faster one in bfloat16 on a CPU (benchmarks/means.py).
EAGER_UP_TO = 384
ROW_BY_ROW = "llmft_row_by_row"

Span = tuple[int, int]
_spans: ContextVar[list[list[Span]]] = ContextVar("spans")  # of each line, where its rows begin and end


@contextmanager
def attention_for(model: Any, length: int, rows: Tensor | None, *, by_length: bool) -> Iterator[None]:
    """Choose the attention of a forward pass.

    Args:
        model: Of transformers, or around one.
        length: Tokens of its longest line.
        rows: [B, S], which row of its line a token belongs to, where packed rows may be taken one by one; else None.
        by_length: Whether short lines shall have eager attention.
    """
    before = model.config._attn_implementation
    if rows is not None and _can_be_alone(model.config, length):
        wanted, token = _registered(), _spans.set(spans(rows))
    else:
        wanted, token = ("eager" if by_length and length <= EAGER_UP_TO else before), None
    if wanted != before:
        model.set_attn_implementation(wanted)
    try:
        yield
    finally:
        if wanted != before:  # answers, too, would be computed otherwise from then on
            model.set_attn_implementation(before)
        if token:
            _spans.reset(token)


def spans(rows: Tensor) -> list[list[Span]]:
    """Where each row of each line begins and ends, padding as a row of its own; they cover the line.

    Args:
        rows: [B, S].
    """
    found = []
    for starts in row_starts(rows):
        edges = [*starts.nonzero()[:, 0].tolist(), rows.shape[1]]
        found.append(list(pairwise(edges)))
    return found


def _can_be_alone(config: Any, length: int) -> bool:
    """Whether attention is no more than a softmax over the tokens before, which is all that is done row by row."""
    window = getattr(config, "sliding_window", None)
    capped = getattr(config, "attn_logit_softcapping", None)
    return capped is None and (window is None or window >= length) and not hasattr(config, "attention_chunk_size")


def _registered() -> str:
    from transformers import AttentionInterface

    AttentionInterface.register(ROW_BY_ROW, _row_by_row)  # its masks are not registered: none are made
    return ROW_BY_ROW


def _row_by_row(module: Any, query: Tensor, key: Tensor, value: Tensor, _: Any, **more: Any) -> Any:
    """Query [B, H, S, D], key and value with as many heads or fewer, to [B, S, H, D].

    A line of 1,024 tokens with four rows has a quarter of its scores inside rows; a mask would have the others computed too.
    """
    lines = []
    for number, line in enumerate(_spans.get()):
        parts = [[x[number : number + 1, :, start:end] for x in (query, key, value)] for start, end in line]
        lines.append(torch.cat([_alone(module, *part, **more) for part in parts], dim=1))
    return torch.cat(lines), None


def _alone(module: Any, query: Tensor, key: Tensor, value: Tensor, **more: Any) -> Tensor:
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    length = query.shape[2]
    if query.dtype != torch.bfloat16 or length > EAGER_UP_TO:
        return sdpa_attention_forward(module, query, key, value, None, **{**more, "is_causal": length > 1})[0]
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scaling = more.get("scaling") or query.shape[-1] ** -0.5
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(later, torch.finfo(query.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    weights = torch.nn.functional.dropout(weights, more.get("dropout", 0.0), module.training)
    return (weights @ value).transpose(1, 2)
