"""Measurements behind the choices of ``performance=auto``, one optimization at a time, in turns. Prints a table.

    python benchmarks/means.py attention    # eager against the kernels of SDPA, by length and dtype
    python benchmarks/means.py head         # LM head and loss: full logits, torch's in chunks, llmft's in chunks
    python benchmarks/means.py compiled     # torch.compile on a LoRA step of SmolLM2: compile time and gain

CPU time, minimum of several rounds, forward and backward pass. OMP_NUM_THREADS=1 is steadier on a busy machine.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.typed import typed
from llmft.models.chunked_head import chunked_cross_entropy_sum
from llmft.models.loss import token_loss_sum

LENGTHS = (64, 128, 256, 384, 512, 1024)
ROWS, HEADS, SIZE = 8, 9, 64  # batch size, and SmolLM2's attention heads and head size
WIDTH, WORDS = 576, 49152  # hidden size and vocabulary of its LM head
FORGET = Path("/proc/self/clear_refs")


def peak_mib() -> float:
    """Peak resident set since it was last reset, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def cost(step: Callable[[], Tensor], rounds: int) -> tuple[float, float]:
    """CPU milliseconds of a forward and backward pass (after one warm-up), and the MiB that it allocates."""
    seconds = []
    FORGET.write_text("5")
    before = peak_mib()
    for _ in range(rounds + 1):
        started = time.process_time()
        step().backward()
        seconds.append(time.process_time() - started)
    return 1000 * min(seconds[1:]), peak_mib() - before


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Eager attention as transformers computes it."""
    scores = q @ k.transpose(2, 3) * SIZE**-0.5 + mask
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v


def attention() -> Table:
    table = Table(
        "dtype", "tokens", "eager ms", "SDPA flash ms", "SDPA math ms", title="attention, batch of 8, 9 heads of 64"
    )
    for dtype in (torch.float32, torch.bfloat16):
        for length in LENGTHS:
            q, k, v = (torch.randn(ROWS, HEADS, length, SIZE).to(dtype).requires_grad_() for _ in range(3))
            seen = torch.ones(length, length, dtype=torch.bool).tril().expand(ROWS, 1, length, length)
            mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)

            def kernel(kind: SDPBackend, q: Tensor = q, k: Tensor = k, v: Tensor = v, seen: Tensor = seen) -> Tensor:
                with sdpa_kernel([kind]):
                    return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen).sum()

            ways = (
                lambda q=q, k=k, v=v, mask=mask: eager(q, k, v, mask).sum(),
                lambda kernel=kernel: kernel(SDPBackend.FLASH_ATTENTION),
                lambda kernel=kernel: kernel(SDPBackend.MATH),
            )
            found = [cost(way, 6 if length <= 256 else 3)[0] for way in ways]
            table.add_row(str(dtype)[6:], str(length), *(f"{ms:.1f}" for ms in found))
    return table


def head() -> Table:
    table = Table("dtype", "positions", "way", "ms", "MiB", "sum, nats", title=f"head of {WIDTH} x {WORDS}, frozen")
    options = torch.nn.LinearCrossEntropyOptions()
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.randn(WORDS, WIDTH).mul(0.02).to(dtype)
        for positions in (200, 1000, 3000):
            hidden = torch.randn(positions, WIDTH).to(dtype).requires_grad_()
            targets = torch.randint(0, WORDS, (positions,))
            ways = {
                "full logits": lambda h=hidden, w=weight, t=targets: token_loss_sum(functional.linear(h, w), t)[0],
                "torch, in chunks": lambda h=hidden, w=weight, t=targets: functional.linear_cross_entropy(
                    h, w, t, reduction="sum", options=options
                ),
                "llmft, in chunks": lambda h=hidden, w=weight, t=targets: chunked_cross_entropy_sum(h, w, None, t)[0],
            }
            for name, way in ways.items():
                ms, mib = cost(way, 2)
                table.add_row(str(dtype)[6:], str(positions), name, f"{ms:.0f}", f"{mib:.0f}", f"{way().item():.2f}")
    return table


def compiled() -> Table:
    from llmft.models.backbone.open import Backbone

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = typed(
            compose("train", overrides=["model=smollm2_135m", "model.dtype=bfloat16", "peft.dropout=0"]), TrainConfig
        ).config
    model = Backbone.open(cfg).load_adapted()
    table = Table(
        "way", "first two steps, s", "later step, CPU s", title="LoRA on SmolLM2, bf16, 8 examples of 64 to 96 tokens"
    )
    for name in ("eager", "compiled"):
        if name == "compiled":
            model.compile(dynamic=True)

        def step(length: int) -> float:
            ids = torch.randint(1000, 40000, (ROWS, length))
            started = time.process_time()
            model(input_ids=ids, use_cache=False).logits[:, -20:].float().logsumexp(-1).sum().backward()
            return time.process_time() - started

        wall = time.perf_counter()
        step(64), step(96)
        wall = time.perf_counter() - wall
        after = min(step(80) for _ in range(4))
        table.add_row(name, f"{wall:.1f}", f"{after:.2f}")
    return table


if __name__ == "__main__":
    Console().print({"attention": attention, "head": head, "compiled": compiled}[sys.argv[1]]())
