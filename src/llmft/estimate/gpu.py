"""GPU memory: what a process takes besides torch's tensors, what is free, and the smallest card that fits."""

import torch

GIB = 2**30
# GiB that torch reports for the smallest common card of each size in GB; ECC and the driver take the rest. As printed in
# errors of torch: RTX 3070 7.76, T4 14.56, A10 22.1, A100 39.4 and 79.25.
CARDS = {8: 7.76, 16: 14.56, 24: 22.1, 40: 39.4, 80: 79.25}
# CUDA's context with the kernels that a training loads (300 to 400 MB in pytorch/pytorch#107667 and #109888) and the workspace
# of cuBLAS. Not measured here.
CONTEXT_BYTES = GIB // 2
# Share of the memory that a step allocates and frees, which the caching allocator holds in blocks that are too small for the
# next tensor. Not measured here; weights, gradients and optimizer states are allocated once.
FRAGMENTED = 0.1


def smallest_card(size: int) -> int | None:
    """The smallest of ``CARDS`` that holds a number of bytes, in GB; None if none does."""
    return next((card for card, gib in CARDS.items() if size <= gib * GIB), None)


def available_gpu_bytes(gib: float | None = None) -> int | None:
    """Bytes of a GPU that a training may use, its CUDA context included; None if there is no GPU.

    Args:
        gib: Of a GPU that need not be here, of which all is free; None for the first GPU of this machine, of which other
            processes may hold a part.
    """
    if gib is not None:
        return int(gib * GIB)
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info(0)
    # what this process holds itself is not free, but is the training's to use
    return min(total, free + torch.cuda.memory_reserved(0) + CONTEXT_BYTES)
