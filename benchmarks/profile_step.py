"""What the time of a training step is made of: one LoRA step of SmolLM2 by operation, with torch's profiler. Prints a table.

    python benchmarks/profile_step.py [steps=4] [OVERRIDES ...]      # e.g. model.dtype=float32 peft.dropout=0

The rows are the Alpaca sample, the settings those of a run, without its callbacks. OMP_NUM_THREADS=1 is steadier on a busy machine.
"""

import sys
import tempfile
import time
from collections import Counter
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile, record_function

from llmft.api import build

LINE = ("model=smollm2_135m", "peft=lora", "data=alpaca", "data.path=sample", "baseline=false", "questions=0")
ATTENTION = ("bmm", "softmax", "scaled_dot_product", "flash_attention", "baddbmm")
PRODUCTS = ("aten::mm", "aten::addmm", "mkldnn", "aten::linear", "aten::matmul")
# The parts of a step that ``stepped`` marks, and the autograd function of the head.
MARKED = {"_HeadLoss": "head and cross-entropy", "data": "data", "optimizer": "optimizer"}


def part_of(event: Any) -> str:
    """The part of a step that an operation belongs to."""
    names, above = [event.name], event.cpu_parent
    while above is not None:
        names.append(above.name)
        above = above.cpu_parent
    for name, part in MARKED.items():
        if any(name == each.removesuffix("Backward") for each in names):
            return part
    if any(kind in event.name for kind in ATTENTION):
        return "attention"
    if any(kind in event.name for kind in PRODUCTS):
        backward = any(name.startswith("autograd::engine") for name in names)
        return f"matrix products, {'backward' if backward else 'forward'}"
    return "norms, rotary positions, activations, residuals, copies"


def stepped(module: Any, optimizer: Any, batches: Any) -> None:
    """One step, as Lightning runs it, without callbacks."""
    with record_function("data"):
        batch = next(batches)
    total, tokens = module.forward_pass.loss_sum(batch)
    total.backward()
    with record_function("optimizer"):
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(tokens)
        torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()


def measured(steps: int, overrides: list[str]) -> tuple[Counter[str], float]:
    """CPU seconds of each part of a step, and of the step as a whole; the first step is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        parts = build([*LINE, f"output_dir={folder}/run", *overrides])
    module, data = parts.module.train(), parts.datamodule
    data.setup("fit")
    optimizer: Any = module.configure_optimizers()
    batches = iter(data.train_dataloader())
    stepped(module, optimizer["optimizer"], batches)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        started = time.process_time()
        for _ in range(steps):
            stepped(module, optimizer["optimizer"], batches)
        total = time.process_time() - started
    found: Counter[str] = Counter()
    for event in profiler.events() or []:
        found[part_of(event)] += event.self_cpu_time_total / 1e6 / steps
    return found, total / steps


def main() -> None:
    steps = next((int(word.removeprefix("steps=")) for word in sys.argv[1:] if word.startswith("steps=")), 4)
    found, total = measured(steps, [word for word in sys.argv[1:] if not word.startswith("steps=")])
    whole = max(total, found.total())
    found["Python between operations"] = whole - found.total()
    table = Table("part", "ms a step", "share", title=f"one step, {torch.get_num_threads()} threads, {total:.2f} CPU s")
    for part, seconds in found.most_common():
        table.add_row(part, f"{1000 * seconds:,.0f}", f"{seconds / whole:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
