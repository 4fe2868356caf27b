"""torch's flex attention over the examples of a flat batch, on CUDA: as ``flash.py``, and in float32 and with soft caps too.

Lengths are passed on as in ``flash.py``; a call without them (a padded batch, an answer) is that of the model before.

Shapes: n query tokens, m key tokens, H heads, D head dimensions.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from llmft.models.attention import flex_kernel
from llmft.models.attention.flex_kernel import Scores
from llmft.models.attention.key_ranges import BLOCK, block_mask, key_ranges
from llmft.utils.device import running_autocast
from llmft.utils.flex import unfit

NAME = "llmft_key_ranges"
DEVICES = ("cuda",)
# Fewer queries would be another kernel (that of decoding), and a single block a compilation of its own.
SHORTEST = 2 * BLOCK

_block_masks = WeakTensorKeyDictionary()  # by the offsets of the queries, for all layers of a batch


def can_attend(model: Any) -> bool:
    """Whether examples can attend with flex attention.

    Args:
        model: A transformers or peft model, on the device that computes.
    """
    name = model.config._attn_implementation
    known = name in ("sdpa", "eager") or name.startswith(NAME)
    return known and model.device.type in (*DEVICES, "meta") and unfit(model.config) is None


def install(model: Any) -> None:
    """Let a model attend with flex attention where it is passed lengths, from now on, and else as before.

    Args:
        model: A transformers or peft model that attends with sdpa, or with eager attention if it has no other (Gemma 2).
    """
    before = model.config._attn_implementation
    if before.startswith(NAME):
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask, sdpa_mask

    name = f"{NAME}_{before}"
    AttentionInterface.register(name, partial(_attention, _eager if before == "eager" else _sdpa))
    AttentionMaskInterface.register(name, eager_mask if before == "eager" else sdpa_mask)
    model.set_attn_implementation(name)


def _sdpa(module: Any, *args: Any, **kwargs: Any) -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, *args, **kwargs)


def _eager(module: Any, *args: Any, **kwargs: Any) -> Any:
    """Each architecture has its own, which caps scores or not."""
    own: Any = inspect.getmodule(type(module))
    return own.eager_attention_forward(module, *args, **kwargs)


def _attention(
    otherwise: Callable[..., Any],
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> Any:
    """Query [1, H, n, D], key and value [1, H or fewer, m, D], to [1, n, H, D]."""
    lengths = [kwargs.pop(f"{name}_{side}", None) for name in ("cu_seq_lens", "max_length") for side in "qk"]
    if lengths[0] is None and (attention_mask is None or attention_mask.numel()):
        return otherwise(module, query, key, value, attention_mask, **kwargs)
    causal, window = kwargs.get("is_causal"), kwargs.get("sliding_window")
    causal = bool(getattr(module, "is_causal", True) if causal is None else causal)
    added = kwargs.get("position_bias") is not None or kwargs.get("s_aux") is not None or kwargs.get("dropout")
    if lengths[0] is None or added or (window is not None and not causal):
        raise NotImplementedError(f"{type(module).__name__} does not attend to ranges of keys")
    offsets = (
        lengths[0],
        lengths[0] if causal else lengths[1],
    )  # the keys of a decoder are those of its cross attention
    dtype = running_autocast(query.device.type) or value.dtype  # a norm of queries and keys may return float32
    heads = [x.to(dtype) for x in (query, key, value)]
    scores = Scores(kwargs.get("scaling"), kwargs.get("softcap"))
    if query.is_meta:
        return flex_kernel.Outline.apply(*heads).transpose(1, 2), None
    with torch.autocast(query.device.type, enabled=False):  # or each autocast would be a compilation of its own
        return _attend(heads, offsets, scores, causal=causal, window=window).transpose(1, 2), None


def _attend(
    heads: Sequence[Tensor], offsets: tuple[Tensor, Tensor], scores: Scores, *, causal: bool, window: int | None
) -> Tensor:
    """Query [1, H, n, D], key and value [1, H or fewer, m, D], to [1, H, n, D]."""
    tokens = heads[0].shape[2]
    padded = list(map(_padded, heads))
    masks: dict[Any, Any] = _block_masks.setdefault(offsets[0], {})  # pyright: ignore[reportAssignmentType]
    kind = (causal, window, id(offsets[1]))
    if kind not in masks:
        keys = key_ranges(offsets, tokens, padded[1].shape[2], causal=causal, window=window)
        # of cross attention the other offsets are kept, so that no other tensor gets their id
        kept = offsets[1] if offsets[1] is not offsets[0] else None
        masks[kind] = block_mask(keys.extended(padded[0].shape[2])), kept
    flex_kernel.compare(heads, scores)
    return flex_kernel.attend(padded, masks[kind][0], scores)[:, :, :tokens]


def _padded(x: Tensor) -> Tensor:
    """Heads [1, H, n, D] of at least ``SHORTEST`` tokens; long ones as they are, as padding by nothing would copy them."""
    missing = SHORTEST - x.shape[2]
    return torch.nn.functional.pad(x, (0, 0, 0, missing)) if missing > 0 else x
