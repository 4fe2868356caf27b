"""FlashAttention over the examples of a flat batch, on CUDA in half precision: no padding, no mask, no score between examples.

As in transformers, ``cu_seq_lens`` and ``max_length`` go through the model as keyword arguments, so gradient checkpointing
recomputes a layer with them. A call without them (a padded batch, an answer) is SDPA's, so the model stays set to ``NAME``.

The kernel is flash-attn's, through the integration of transformers, if it is installed, and else torch's own copy of it.

Shapes: n query tokens, m key tokens of N examples, H heads, D head dimensions.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.models.attention.flat import ExampleLengths
from llmft.utils.device import running_autocast
from llmft.utils.flash import TORCH, kernel_name, unfit
from llmft.utils.modules import outside_graphs

NAME = "llmft_cu_seq_lens"  # transformers loads a kernel for a name with "flash" in it
DEVICES = ("cuda",)
DTYPES = (torch.float16, torch.bfloat16)


class Options(NamedTuple):
    """How examples attend: causally or not, with which scale (None: one over the root of the head size), dropout and window."""

    causal: bool
    scale: float | None
    dropout: float
    window: int | None


def can_attend(model: Any) -> bool:
    """Whether examples can attend with FlashAttention, as the model computes now.

    Args:
        model: A transformers or peft model, on the device that computes.
    """
    device = model.device.type
    computes = device in DEVICES and computing_dtype(model, device) in DTYPES
    return (
        (computes or device == "meta")  # in an estimate the config has said so
        and model.config._attn_implementation in ("sdpa", NAME)
        and unfit(model.config) is None
    )


def computing_dtype(model: Any, device: str) -> torch.dtype:
    """The dtype that a model multiplies matrices in, under autocast or not.

    Args:
        model: A transformers or peft model.
        device: Type of its device.
    """
    return running_autocast(device) or model.dtype


def install(model: Any) -> None:
    """Let a model attend with ``NAME``, from now on: the backward pass may recompute a layer.

    Args:
        model: A transformers or peft model that attends with sdpa.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, outside_graphs(_attention))
    if model.config._attn_implementation == NAME:
        return
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def arguments(queries: ExampleLengths, keys: ExampleLengths) -> dict[str, Any]:
    """What a model passes on to its attention: lengths, and a mask of no size, in place of which it would make one.

    Args:
        queries: Lengths of the examples whose tokens attend.
        keys: Of those that they attend to, in cross attention.
    """
    return {
        "attention_mask": torch.empty(1, 1, 0, 0, device=queries.offsets.device),
        "cu_seq_lens_q": queries.offsets,
        "cu_seq_lens_k": keys.offsets,
        "max_length_q": queries.longest,
        "max_length_k": keys.longest,
    }


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Any:
    """Query [1, H, n, D], key and value [1, H or fewer, m, D], to [1, n, H, D]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    offsets, longest = ([kwargs.pop(f"{name}_{side}", None) for side in "qk"] for name in ("cu_seq_lens", "max_length"))
    if offsets[0] is None and (attention_mask is None or attention_mask.numel()):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    causal = kwargs.get("is_causal")
    causal = bool(getattr(module, "is_causal", True) if causal is None else causal)
    added = kwargs.get("position_bias") is not None or kwargs.get("s_aux") is not None
    # transformers' mask of an encoder's window reaches one token further on each side than its FlashAttention does
    if offsets[0] is None or added or (kwargs.get("sliding_window") is not None and not causal):
        raise NotImplementedError(f"{type(module).__name__} does not attend by cu_seq_lens")
    if causal:  # in a decoder; the lengths of the keys are for its cross attention
        offsets[1], longest[1] = offsets[0], longest[0]
    heads = [x.transpose(1, 2) for x in _in_half(query, key, value)]
    options = Options(causal, kwargs.get("scaling"), kwargs.get("dropout", 0.0), kwargs.get("sliding_window"))
    return _kernel()(heads, offsets, longest, options), None


def _in_half(*heads: Tensor) -> Sequence[Tensor]:
    """Heads in a dtype that the kernel takes: a norm of queries and keys may return float32, and autocast ends there."""
    given = running_autocast(heads[0].device.type) or heads[-1].dtype
    dtype = next((x.dtype for x in heads if x.dtype in DTYPES), given)
    return [x.to(dtype) for x in heads]


@cache
def _kernel() -> Any:
    """The installed kernel, as a function of heads [1, n or m, H, D]."""
    name = kernel_name()
    return _of_torch if name in (None, TORCH) else partial(_of_transformers, str(name))


def _of_torch(heads: Sequence[Tensor], offsets: Sequence[Tensor], longest: Sequence[int], options: Options) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (x[0] for x in heads)
    left = -1 if options.window is None else options.window - 1
    right = 0 if options.causal else left
    if options.dropout:  # the public function has none
        forward = torch.ops.aten._flash_attention_forward
        positional = (query, key, value, *offsets, *longest, options.dropout, options.causal, False)
        named = {"scale": options.scale, "window_size_left": left, "window_size_right": right}
        return forward(*positional, **named)[0][None]
    shared = query.shape[1] != key.shape[1]
    (q_offsets, k_offsets), (q_longest, k_longest) = offsets, longest
    named = {"scale": options.scale, "window_size": (left, right), "enable_gqa": shared}
    out = varlen_attn(query, key, value, q_offsets, k_offsets, q_longest, k_longest, **named)
    assert isinstance(out, Tensor)
    return out[None]


def _of_transformers(
    name: str, heads: Sequence[Tensor], offsets: Sequence[Tensor], longest: Sequence[int], options: Options
) -> Tensor:
    from transformers.modeling_flash_attention_utils import _flash_attention_forward

    query, key, value = heads
    lengths: Any = {"cu_seq_lens_q": offsets[0], "cu_seq_lens_k": offsets[1]}  # declared int64, and taken in int32

    # torch's own kernel asks by itself
    deterministic = (
        torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    )
    return _flash_attention_forward(
        query,
        key,
        value,
        None,
        query_length=query.shape[1],
        is_causal=options.causal,
        dropout=options.dropout,
        softmax_scale=options.scale,
        sliding_window=options.window,
        deterministic=deterministic,
        max_length_q=longest[0],
        max_length_k=longest[1],
        attn_implementation=name,
        **lengths,
    )
