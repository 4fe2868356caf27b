"""Peak memory of a training step on the meta device, by tracking storages under ``__torch_dispatch__``."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ITEM = torch.ops.aten._local_scalar_dense.default


class MemoryTracker(TorchDispatchMode):
    """Dispatch mode that counts the bytes of new tensors; tensors that existed before do not count.

    Args:
        known: Tensors that existed before.
        masked: Whether to assume that attention masks mask something. Transformers checks their values, which meta tensors do
            not have.

    Attributes:
        live: Bytes that are allocated now.
        peak: Maximum of ``live``.
    """

    def __init__(self, *known: Tensor, masked: bool = True) -> None:
        super().__init__()
        self.masked = masked
        self.live = self.peak = 0
        self.kept = [
            tensor.untyped_storage() for tensor in known
        ]  # kept alive, so that no new storage gets the same address
        self.seen = {storage._cdata for storage in self.kept}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and track the storages of its results."""
        if func is ITEM and args[0].is_meta:
            return not self.masked  # the check whether a mask masks nothing
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._track(tensor.untyped_storage())
        return result

    def restart_peak(self) -> int:
        """The peak until now; from here on it counts anew."""
        peak, self.peak = self.peak, self.live
        return peak

    def _track(self, storage: Any) -> None:
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
    """Count attention as a fused kernel does, without the matrix of attention weights; the meta device has no such kernel.

    Args:
        on_gpu: Whether it runs on a GPU, whose memory-efficient kernel supports dropout, and masks that need a gradient (the
            CPU's does not).
    """
    real = torch.nn.functional.scaled_dot_product_attention

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, **more: Any
    ) -> Any:
        trainable = attn_mask is not None and attn_mask.requires_grad  # T5's position bias
        if ((trainable or dropout_p) and not on_gpu) or not query.is_meta:
            mask = None if attn_mask is None else attn_mask.to(query.device)  # made of the batch, which is on the CPU
            return real(query, key, value, mask, dropout_p, **more)
        return _Fused.apply(query, key, value, attn_mask)

    # replaces the function: a TorchFunctionMode is not active when checkpointing recomputes a layer
    torch.nn.functional.scaled_dot_product_attention = attention  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = real


def offload_recomputed(model: torch.nn.Module) -> None:
    """Count the inputs of recomputed layers as ``activation_offload`` does: not until the backward pass needs them.

    Args:
        model: On the meta device, with gradient checkpointing, whose own offload copies to a real device.
    """
    for module in model.modules():
        function = getattr(module, "_gradient_checkpointing_func", None)
        if function is not None:
            module._gradient_checkpointing_func = partial(_offloaded, function)  # pyright: ignore[reportArgumentType]


def _offloaded(function: Any, *args: Any, **kwargs: Any) -> Any:
    def pack(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
        return tensor.shape, tensor.dtype

    def unpack(kept: tuple[torch.Size, torch.dtype]) -> Tensor:
        return torch.empty(kept[0], dtype=kept[1], device="meta")

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return function(*args, **kwargs)


class _Fused(torch.autograd.Function):
    """Saves for backward what fused kernels save: query, key, value, output, log-sum-exp per query, and the mask."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        kept = [query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32)]
        if mask is not None:  # a bool one, torch converts to a float mask in each layer
            kept.append(query.new_empty(mask.shape) if mask.dtype is torch.bool else mask)
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # noqa: ARG004
        query, key, value, _, _, *masks = ctx.saved_tensors
        of_mask = None
        if ctx.needs_input_grad[3]:  # of each score, then summed over what the mask was broadcast to
            scores = query.new_empty((*query.shape[:-1], key.shape[-2]))
            of_mask = scores.sum_to_size(masks[0].shape).to(masks[0].dtype)
        return (*(torch.empty_like(tensor) for tensor in (query, key, value)), of_mask)
