"""Peak matrix multiplication speed of this machine: the ceiling for a training, measured in turns with it."""

import sys
import time
from typing import Any

import torch

from llmft.utils.device import bfloat16_units
from training.turns import Turns

SIZE = {"cpu": 2048, "cuda": 8192}
PRODUCTS = {"cpu": 4, "cuda": 20}


def product(dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Measure the operations per second of products of square matrices.

    Returns:
        The dtype's name, and operations (2 n^3) per second and per CPU-second of the fastest product.
    """
    size, times, cpu_times = SIZE[device], [], []
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    for _ in range(PRODUCTS[device]):
        started, cpu_started = time.perf_counter(), time.process_time()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        cpu_times.append(time.process_time() - cpu_started)
    work = 2.0 * size**3
    return {"dtype": str(dtype).removeprefix("torch."), "wall": work / min(times), "cpu": work / min(cpu_times)}


def main() -> None:
    device = sys.argv[1]
    turns = Turns()
    turns.ready(steps=10**9)
    # without units for it, a product in bfloat16 takes a CPU a minute
    dtypes = (torch.float32, torch.bfloat16) if bfloat16_units(gpu=device == "cuda") else (torch.float32,)
    while True:
        for dtype in dtypes:
            turns.took(product(dtype, device))


if __name__ == "__main__":
    main()
