"""A training step without numbers -> the memory that it would hold at most, byte for byte as torch would ask for it."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ITEM = torch.ops.aten._local_scalar_dense.default


class Ledger(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, while it is on; those that were there before are free.

    Attributes:
        live: Bytes that are held now.
        peak: The most that were held at once.
    """

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.kept = [tensor.untyped_storage() for tensor in known]  # alive, so that no other gets their address
        self.seen = {storage._cdata for storage in self.kept}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and book what it made."""
        if func is ITEM and args[0].is_meta:
            return 0  # whether a mask masks nothing, is asked of it; say that it masks something
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


class FusedAttention(TorchFunctionMode):
    """Attention without its matrix of weights, where the device has a kernel for that; tensors without numbers know none.

    Args:
        on_gpu: A GPU's kernels drop weights out as well; the CPU's do not.
    """

    def __init__(self, *, on_gpu: bool) -> None:
        super().__init__()
        self.on_gpu = on_gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Stand in for the one function."""
        given = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **given)
        mask = given.get("attn_mask", args[3] if len(args) > 3 else None)
        dropout = given.get("dropout_p", args[4] if len(args) > 4 else 0.0)
        learnt = mask is not None and mask.requires_grad  # T5's position bias
        if learnt or (dropout and not self.on_gpu) or not args[0].is_meta:
            return func(*args, **given)
        return _Fused.apply(*args[:3], mask)


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
