"""A stand-in for FlashAttention's variable-length kernel, in plain torch on a CPU, that records its calls."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.models.attention import flash


class Call(NamedTuple):
    """What a kernel was called with; lengths as lists."""

    heads: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    offsets: tuple[list[int], list[int]]
    longest: tuple[int, int]
    causal: bool
    window: tuple[int, int]


class VarlenKernel:
    """The kernel; takes the place of flash-attn's or torch's with ``install``."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def flash_attn_varlen_func(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        deterministic: bool = False,
    ) -> Tensor:
        """Query [n, H, D], key and value [m, H or fewer, D], to [n, H, D]."""
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert not deterministic
        offsets = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
        shapes = tuple(tuple(x.shape) for x in (q, k, v))
        self.calls.append(Call(shapes, q.dtype, offsets, (max_seqlen_q, max_seqlen_k), causal, window_size))
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        parts = []
        for (start, end), (first, last) in zip(*map(pairwise, offsets), strict=True):
            assert end - start <= max_seqlen_q
            assert last - first <= max_seqlen_k
            scores = torch.einsum("qhd,khd->hqk", q[start:end], k[first:last]) * (softmax_scale or q.shape[-1] ** -0.5)
            distance = torch.arange(end - start)[:, None] - torch.arange(last - first)
            left, right = window_size[0], 0 if causal else window_size[1]
            hidden = (distance > left if left >= 0 else False) | (
                -distance > right if right >= 0 else distance < -(10**9)
            )
            weights = torch.dropout(scores.masked_fill(hidden, -torch.inf).softmax(-1), dropout_p, dropout_p > 0)
            parts.append(torch.einsum("hqk,khd->qhd", weights, v[first:last]))
        return torch.cat(parts)

    def varlen_attn(
        self, *heads_and_lengths: Any, scale: float | None, window_size: Any, enable_gqa: bool, dropout_p: float = 0.0
    ) -> Tensor:
        """As torch's own: a window that ends at 0 is causal."""
        q, k = heads_and_lengths[:2]
        assert enable_gqa == (q.shape[1] != k.shape[1])
        causal = window_size[1] == 0
        options: Any = {
            "softmax_scale": scale,
            "causal": causal,
            "window_size": tuple(window_size),
            "dropout_p": dropout_p,
        }
        return self.flash_attn_varlen_func(*heads_and_lengths, **options)


def install(monkeypatch: Any, name: str) -> VarlenKernel:
    """Let FlashAttention run on this CPU in float32, with the stand-in as the kernel ``name`` (``utils.flash``)."""
    kernel = VarlenKernel()
    monkeypatch.setattr(flash, "DEVICES", ("cpu",))
    monkeypatch.setattr(flash, "DTYPES", (torch.float32, torch.bfloat16))
    monkeypatch.setattr(flash, "kernel_name", lambda: name)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel.varlen_attn)
    package, padding = module_from_spec(ModuleSpec("flash_attn", None)), ModuleType("flash_attn.bert_padding")
    for function in ("flash_attn_func", "flash_attn_varlen_func", "flash_attn_with_kvcache"):
        setattr(package, function, getattr(kernel, function, _unused))
    for function in ("pad_input", "unpad_input"):
        setattr(padding, function, _unused)
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.bert_padding", padding)
    monkeypatch.setattr("transformers.modeling_flash_attention_utils.is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr("transformers.modeling_flash_attention_utils._loaded_implementation", None)
    flash._kernel.cache_clear()
    return kernel


def _unused(*_: Any, **__: Any) -> Any:
    raise AssertionError("another kernel was called")
