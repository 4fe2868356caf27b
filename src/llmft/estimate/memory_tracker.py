"""A training step without numbers -> the memory that it would hold at most, byte for byte as torch would ask for it."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ITEM = torch.ops.aten._local_scalar_dense.default


class MemoryTracker(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, while it is on; those that were there before are free.

    Args:
        known: Those.
        masked: What a question to a mask without numbers, whether it masks anything, is answered with.

    Attributes:
        live: Bytes that are held now.
        peak: The most that were held at once.
    """

    def __init__(self, *known: Tensor, masked: bool = True) -> None:
        super().__init__()
        self.masked = masked
        self.live = self.peak = 0
        self.kept = [tensor.untyped_storage() for tensor in known]  # alive, so that no other gets their address
        self.seen = {storage._cdata for storage in self.kept}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and book what it made."""
        if func is ITEM and args[0].is_meta:
            return not self.masked  # asked is whether a mask masks nothing
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._book(tensor.untyped_storage())
        return made

    def _book(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return
        self.seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size


@contextmanager
def fused_attention(*, on_gpu: bool) -> Iterator[None]:
    """Attention without its matrix of weights, where the device has a kernel for that; tensors without numbers know none.

    Args:
        on_gpu: A GPU's kernels drop weights out as well; the CPU's do not.
    """
    real = torch.nn.functional.scaled_dot_product_attention

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, **more: Any
    ) -> Any:
        learnt = attn_mask is not None and attn_mask.requires_grad  # T5's position bias
        if learnt or (dropout_p and not on_gpu) or not query.is_meta:
            return real(query, key, value, attn_mask, dropout_p, **more)
        return _Fused.apply(query, key, value, attn_mask)

    # the function itself: a mode of torch's is not on where checkpointing runs a layer again
    torch.nn.functional.scaled_dot_product_attention = attention  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = real


class _Fused(torch.autograd.Function):
    """Keeps query, key, value, the result, a number per query, and a mask of numbers: what the fused kernels keep."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        kept = [query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32)]
        if mask is not None and mask.dtype is torch.bool:  # torch makes one of numbers from it, for each layer again
            kept.append(query.new_empty(mask.shape))
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # noqa: ARG004
        return (*(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3]), None)
