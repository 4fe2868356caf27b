"""A few real optimizer steps -> seconds of a step, and memory as it is."""

import time
from typing import Any

import torch
from hydra.utils import instantiate

from llmft.data.batching.collate import training_batch
from llmft.data.datamodule import InstructionDataModule
from llmft.estimate.memory import largest_batch
from llmft.models.attention.kernels import Kernels
from llmft.models.backbone.open import Backbone
from llmft.models.forward import Forward
from llmft.utils.device import autocast_dtype, runs_on_gpu, to_device
from llmft.utils.memory import peak_memory_mib
from llmft.utils.text import duration


def measure(cfg: Any, data: InstructionDataModule, backbone: Backbone, *, steps: int) -> dict[str, Any]:
    """Load the model and train it for a few steps: the fullest batch first, for the memory, then others, for the time.

    Args:
        cfg: Of a training, with ``estimate.probe_steps``.
        data: Encoded rows.
        backbone: Of the same config.
        steps: Of the whole training, to say how long it would take.
    """
    device = torch.device("cuda" if runs_on_gpu(cfg.trainer) else "cpu")
    model = backbone.load_adapted().to(device)
    forward = backbone.family(model, Kernels.from_config(cfg))
    optimizer = instantiate(cfg.optim)([p for p in model.parameters() if p.requires_grad])
    rows, window = data.encoded["train"], cfg.trainer.accumulate_grad_batches
    full = training_batch([[rows[row] for row in line] for line in largest_batch(data, cfg)], data.pad_id)
    for _ in range(2):  # the optimizer's states are there from the second step on
        _step(forward, optimizer, [full], cfg, device)
    loader = iter(data.train_dataloader())
    windows = [
        [batch for batch, _ in zip(loader, range(window), strict=False)] for _ in range(cfg.estimate.probe_steps)
    ]
    windows = [batches for batches in windows if batches]
    started = time.perf_counter()
    for batches in windows:
        _step(forward, optimizer, batches, cfg, device)
    seconds = (time.perf_counter() - started) / len(windows)
    tokens = sum(int(batch["attention_mask"].sum()) for batches in windows for batch in batches) / len(windows)
    peak = peak_memory_mib()["gpu" if device.type == "cuda" else "cpu"]
    shown = {
        "a step": f"{seconds:.3g} s",
        "tokens per second": f"{tokens / seconds:,.0f}",
        f"{steps:,} steps, without validation": duration(seconds * steps),
        "peak": f"{peak:,.1f} MiB",
    }
    return {
        "probe_steps": len(windows),
        "seconds_per_step": seconds,
        "training_seconds": seconds * steps,
        "measured_peak": int(peak * 2**20),
        "shown": shown,
    }


def _step(forward: Forward, optimizer: Any, batches: list[dict[str, Any]], cfg: Any, device: torch.device) -> None:
    mixed = autocast_dtype(cfg.trainer.precision)
    for number, batch in enumerate(batches):
        moved = to_device(batch, device)
        with torch.autocast(device.type, dtype=mixed, enabled=mixed is not None):
            total, tokens = forward.loss_sum(moved)
        if number == 0:
            optimizer.zero_grad()  # after the forward pass, as Lightning does
        (total / tokens).backward()
    optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
