"""How fast this machine multiplies matrices: the ceiling that a training is held against, measured in turns with it."""

import sys
import time
from typing import Any

import torch

from training.turns import Turns

SIZE = {"cpu": 2048, "cuda": 8192}
PRODUCTS = {"cpu": 4, "cuda": 20}


def product(dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Operations per second of products of square matrices.

    Returns:
        The dtype's name, and operations per second of the fastest product: 2 n^3 each.
    """
    size, times = SIZE[device], []
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    for _ in range(PRODUCTS[device]):
        started = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return {"dtype": str(dtype).removeprefix("torch."), "rate": 2.0 * size**3 / min(times)}


def main() -> None:
    device = sys.argv[1]
    turns = Turns()
    turns.ready(steps=10**9)
    while True:
        for dtype in (torch.float32, torch.bfloat16):
            turns.took(product(dtype, device))


if __name__ == "__main__":
    main()
