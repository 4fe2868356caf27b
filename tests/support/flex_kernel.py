"""A stand-in for torch's compiled flex attention, in plain torch on a CPU, that reads a ``BlockMask`` as the kernel does."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.models.attention import flex, flex_kernel


class Call(NamedTuple):
    """What the kernel was called with; ``seen`` are the pairs of query and key that it computes, [n, m]."""

    heads: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    scale: float | None
    capped: bool
    seen: Tensor


class FlexKernel:
    """The kernel; takes the place of torch's with ``install``."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        score_mod: Any = None,
        block_mask: Any = None,
        scale: float | None = None,
        *,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Query [1, H, n, D], key and value [1, H or fewer, m, D], to [1, H, n, D]."""
        assert enable_gqa == (query.shape[1] != key.shape[1])
        assert query.dtype == key.dtype == value.dtype
        seen = computed(block_mask)
        shapes = tuple(tuple(x.shape) for x in (query, key, value))
        self.calls.append(Call(shapes, query.dtype, scale, score_mod is not None, seen))
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        scores = query @ key.transpose(2, 3) * (scale or query.shape[-1] ** -0.5)
        if score_mod is not None:
            scores = score_mod(scores, *[torch.zeros(())] * 4)
        return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value


def computed(mask: Any) -> Tensor:
    """The scores that a kernel computes, [n, m], bool: all of whole blocks, and of others those of ``mask_mod``."""
    queries, keys = mask.seq_lengths
    rows, columns = torch.arange(queries)[:, None], torch.arange(keys)
    within = mask.mask_mod(None, None, rows, columns)
    some = _spread(mask.kv_num_blocks, mask.kv_indices, mask.BLOCK_SIZE)[:queries, :keys]
    whole = _spread(mask.full_kv_num_blocks, mask.full_kv_indices, mask.BLOCK_SIZE)[:queries, :keys]
    assert not (some & whole).any()
    return whole | (some & within)


def _spread(numbers: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Listed blocks as scores, [n, m], bool."""
    blocks = torch.zeros(indices.shape[2:], dtype=torch.bool)
    for row, (number, columns) in enumerate(zip(numbers[0, 0].tolist(), indices[0, 0].tolist(), strict=True)):
        blocks[row, columns[:number]] = True
    return blocks.repeat_interleave(size[0], 0).repeat_interleave(size[1], 1)


def install(monkeypatch: Any) -> FlexKernel:
    """Let flex attention train on this CPU, with the stand-in as its kernel."""
    kernel = FlexKernel()
    monkeypatch.setattr(flex, "DEVICES", ("cpu",))
    monkeypatch.setattr(flex_kernel, "_flex_attention", lambda: kernel)
    monkeypatch.setattr(flex_kernel, "_compared", set())
    monkeypatch.setattr("llmft.utils.flex.NARROWEST", 8)  # the heads of the tests' models
    return kernel
