"""Variable-length attention on a CPU: packed sequences without padding, each example attends on its own.

All else in a transformer works token by token, so nothing is computed for padding, and no score between two examples.
flash-attn's varlen kernels and trl's padding_free do this on a GPU.

Shapes: B sequences, T query tokens, S key tokens, H heads, D head dimensions. Short examples are attended to in one padded
batch of R examples with L slots.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.models.attention import packing
from llmft.models.attention.packing import Lengths
from llmft.models.backbone.special_ids import part_configs
from llmft.utils.modules import outside_graphs

# Tokens of an example up to which eager attention is the faster one in bfloat16 on a CPU (benchmarks/means.py).
EAGER_UP_TO = 384
# Tokens of an example up to which examples attend in one padded batch: many small matrix products take longer.
SHORT = 128
NAME = "llmft_varlen"


class PaddedLayout(NamedTuple):
    """Short examples as a padded batch: R examples of L slots, filled up with copies of their last tokens.

    Attributes:
        shape: R and L.
        tokens: [R * L], index of the token in each slot.
        slots: [tokens], slot of each token.
        copies: [R, 1, 1, L], bool: slots that hold no token of the example.
    """

    shape: tuple[int, int]
    tokens: Tensor
    slots: Tensor
    copies: Tensor


class SequenceLengths(NamedTuple):
    """Lengths of the examples of each sequence, padding as an example; ``layout`` if all of them are short."""

    lengths: Lengths
    layout: PaddedLayout | None


class VarlenContext(NamedTuple):
    """Lengths for the running forward pass: of the decoder (or causal model), and of the encoder of a seq2seq model."""

    own: SequenceLengths
    sources: SequenceLengths | None


_context: ContextVar[VarlenContext] = ContextVar("varlen")


def supports_varlen(config: Any, length: int) -> bool:
    """Whether attention is a plain softmax over the tokens of an example: no soft cap, no window, no chunks.

    Args:
        config: A transformers config.
        length: Tokens of the longest example; a window that is longer does not count.
    """
    return all(_attends_plainly(part, length) for part in part_configs(config))


def _attends_plainly(config: Any, length: int) -> bool:
    window = getattr(config, "sliding_window", None)
    capped = getattr(config, "attn_logit_softcapping", None)
    return capped is None and (window is None or window >= length) and not hasattr(config, "attention_chunk_size")


def sequence_lengths(rows: Tensor) -> SequenceLengths:
    """Lengths and padded layout of packed sequences.

    Args:
        rows: [B, S], segment ids.
    """
    found = packing.lengths(rows)
    return SequenceLengths(found, padded_layout(found))


def padded_layout(sequences: Lengths) -> PaddedLayout | None:
    """Layout of all examples as one padded batch; None if one is longer than ``SHORT``."""
    sizes = torch.tensor([size for sequence in sequences for size in sequence])
    longest = int(sizes.max())
    if longest > SHORT:
        return None
    slot, size = torch.arange(longest), sizes[:, None]
    tokens = (sizes.cumsum(0) - sizes)[:, None] + torch.minimum(slot, size - 1)
    slots = torch.arange(len(sizes) * longest).view(len(sizes), longest)[slot < size]
    return PaddedLayout((len(sizes), longest), tokens.flatten(), slots, (slot >= size)[:, None, None])


@contextmanager
def varlen_attention(model: Any, rows: Tensor, sources: Tensor | None) -> Iterator[None]:
    """Register the attention ``NAME`` and set the lengths that it needs, for a forward pass.

    Args:
        model: A transformers model, or a wrapper of one.
        rows: [B, T], segment ids (of the decoder of a seq2seq model).
        sources: [B, S], segment ids of the encoder; None for a causal model.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(
        NAME, outside_graphs(_attention)
    )  # no mask function is registered, so no masks are made
    token = _context.set(VarlenContext(sequence_lengths(rows), None if sources is None else sequence_lengths(sources)))
    biased = [module for module in model.modules() if hasattr(module, "compute_bias")] if sources is not None else []
    for module in biased:
        module.compute_bias = _compute_bias(module)
        # without this T5 would make zeros of the size of all targets times all sources
        module.has_relative_attention_bias = True
    try:
        yield
    finally:
        _context.reset(token)
        for module in biased:
            del module.compute_bias
            module.has_relative_attention_bias = hasattr(module, "relative_attention_bias")


def _compute_bias(attention: Any) -> Any:
    """T5's relative bias, the same in every example: of the longest, [1, H, L, L]; for cross attention, [1, 1, 1, 1]."""

    def compute_bias(*_: Any, device: Any = None, **__: Any) -> Tensor:
        if not hasattr(attention, "relative_attention_bias"):
            return torch.zeros(1, 1, 1, 1, device=device)
        context = _context.get()
        side = context.own if attention.is_causal else context.sources or context.own
        longest = max(map(max, side.lengths))
        return type(attention).compute_bias(attention, longest, longest, device=device)

    return compute_bias


def _attention(module: Any, query: Tensor, key: Tensor, value: Tensor, _: Any, **kwargs: Any) -> Any:
    """Query [B, H, T, D], key and value [B, H or fewer, S, D], to [B, T, H, D].

    A sequence of 1,024 tokens with four examples has a quarter of its scores inside examples; a mask computes the others too.
    """
    own, sources = _context.get()
    causal = sources is None or module.is_causal
    keys = own if sources is None or causal else sources
    queries = own if causal or module.is_decoder else keys
    # per sequence: one with padding on the first side and one with padding on the second have the same sum
    paired = list(map(len, queries.lengths)) == list(map(len, keys.lengths))
    if queries.layout and keys.layout and paired:
        heads = (query, key, value)
        return _padded_attention(module, heads, queries.layout, keys.layout, causal=causal, **kwargs), None
    sequences = []
    for number, (q_sizes, k_sizes) in enumerate(map(_same_number, queries.lengths, keys.lengths)):
        parts = [
            x[number : number + 1].split(sizes, dim=2)
            for x, sizes in ((query, q_sizes), (key, k_sizes), (value, k_sizes))
        ]
        examples = [attend(module, *qkv, causal=causal, **kwargs) for qkv in zip(*parts, strict=True)]
        sequences.append(torch.cat(examples, dim=1))
    return torch.cat(sequences), None


def _padded_attention(
    module: Any, heads: Sequence[Tensor], queries: PaddedLayout, keys: PaddedLayout, *, causal: bool, **kwargs: Any
) -> Tensor:
    """Query, key and value [B, H, T or S, D], to [B, T, H, D]; causal tokens see no copies, which are on the right."""
    batch, parts = (heads[0].shape[0], heads[0].shape[2]), []
    for x, layout in zip(heads, (queries, keys, keys), strict=True):
        spread: Any = Spread.apply(x.transpose(1, 2).flatten(0, 1), layout.tokens, layout.slots)
        parts.append(spread.unflatten(0, layout.shape).transpose(1, 2))
    out = attend(module, *parts, causal=causal, hidden=None if causal else keys.copies, **kwargs)
    collected: Any = Collect.apply(out.flatten(0, 1), queries.slots)
    return collected.unflatten(0, batch)


class Spread(torch.autograd.Function):
    """Tokens into slots. Copies pass no gradient, so the backward pass is a plain index."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tokens: Tensor, slots: Tensor) -> Tensor:
        """[tokens, ...] to [slots, ...]."""
        ctx.save_for_backward(slots)
        return x.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Gradient of the tokens."""
        return grads[0].index_select(0, ctx.saved_tensors[0]), None, None


class Collect(torch.autograd.Function):
    """Slots back into tokens; copies are dropped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor) -> Tensor:
        """[slots, ...] to [tokens, ...]."""
        ctx.save_for_backward(slots)
        ctx.shape = x.shape
        return x.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Gradient of the slots; zero for copies."""
        return grads[0].new_zeros(ctx.shape).index_copy_(0, ctx.saved_tensors[0], grads[0]), None


def _same_number(queries: list[int], keys: list[int]) -> tuple[list[int], list[int]]:
    """Padding at the end of a sequence is an example of its own, and may be on one side only."""
    count = max(len(queries), len(keys))
    return queries + [0] * (count - len(queries)), keys + [0] * (count - len(keys))


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, *, causal: bool, hidden: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """Attention of R examples of the same length.

    Args:
        module: The attention module.
        query: [R, H, T, D].
        key: [R, H or fewer, S, D].
        value: As ``key``.
        causal: Whether a token attends to no later token.
        hidden: [R, 1, 1 or T, S], bool: keys that no token, or a token, does not attend to.
        kwargs: Arguments of transformers' attention functions: ``scaling``, ``dropout``, ``position_bias``.

    Returns:
        [R, T, H, D].
    """
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    if kwargs.get("s_aux") is not None:
        raise NotImplementedError("attention sinks (gpt-oss)")
    length, bias = query.shape[2], kwargs.pop("position_bias", None)
    if bias is not None and bias.shape[-1] == 1:
        bias = None
    if not length or not key.shape[2]:  # padding
        return torch.zeros_like(query).transpose(1, 2)
    long = max(length, key.shape[2]) > EAGER_UP_TO
    if bias is None and (long or (hidden is None and query.dtype != torch.bfloat16)):
        options = {**kwargs, "is_causal": causal and length > 1}
        return sdpa_attention_forward(module, query, key, value, None if hidden is None else ~hidden, **options)[0]
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = query @ key.transpose(2, 3) * (kwargs.get("scaling") or query.shape[-1] ** -0.5)
    lowest = torch.finfo(scores.dtype).min
    if bias is not None:
        scores = scores + bias[..., :length, : key.shape[2]]
    if hidden is not None:
        scores = scores.masked_fill(hidden, lowest)
    if causal:
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), lowest)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    weights = torch.nn.functional.dropout(weights, kwargs.get("dropout", 0.0), module.training)
    return (weights @ value).transpose(1, 2)
