"""Measure step time and peak memory with a few real optimizer steps."""

import time
from typing import Any

import torch
from hydra.utils import instantiate

from llmft.config.schema import EstimateConfig, TrainConfig
from llmft.data.batching.collate import training_batch
from llmft.data.datamodule import InstructionDataModule
from llmft.estimate.memory import largest_batch
from llmft.models.attention.kernels import Kernels
from llmft.models.backbone.open import Backbone
from llmft.models.forward import Forward
from llmft.utils.device import autocast_dtype, runs_on_gpu, tf32, to_device
from llmft.utils.memory import peak_memory_mib
from llmft.utils.text import duration


def measure(cfg: EstimateConfig, data: InstructionDataModule, backbone: Backbone, *, steps: int) -> dict[str, Any]:
    """Load the model and train it for a few steps: first on the largest batch (memory), then on others (time).

    Args:
        cfg: A training config with ``estimate.probe_steps``.
        data: Encoded data module.
        backbone: The backbone of the config.
        steps: Optimizer steps of the complete training, to extrapolate its time.

    Returns:
        ``probe_steps``, ``seconds_per_step``, ``training_seconds``, ``measured_peak`` in bytes, and ``shown``, the same
        formatted for a table.
    """
    device = torch.device("cuda" if runs_on_gpu(cfg.trainer) else "cpu")
    model = backbone.load_adapted().to(device)
    forward = backbone.family(model, Kernels.from_config(cfg))
    optimizer = instantiate(cfg.optim.node())([p for p in model.parameters() if p.requires_grad])
    rows = data.encoded["train"]
    largest = training_batch([[rows[row] for row in pack] for pack in largest_batch(data, cfg)], data.pad_id)
    for _ in range(2):  # the first step creates the optimizer states, the second reaches the peak
        _step(forward, optimizer, [largest], cfg, device)
    windows = _windows(data, cfg)
    started = time.perf_counter()
    for batches in windows:
        _step(forward, optimizer, batches, cfg, device)
    seconds = (time.perf_counter() - started) / len(windows)
    tokens = sum(int(batch["attention_mask"].sum()) for batches in windows for batch in batches) / len(windows)
    peak = peak_memory_mib()["gpu" if device.type == "cuda" else "cpu"]
    return {
        "probe_steps": len(windows),
        "seconds_per_step": seconds,
        "training_seconds": seconds * steps,
        "measured_peak": int(peak * 2**20),
        "shown": {
            "time per step": f"{seconds:.3g} s",
            "tokens per second": f"{tokens / seconds:,.0f}",
            f"{steps:,} steps, without validation": duration(seconds * steps),
            "peak": f"{peak:,.1f} MiB",
        },
    }


def _windows(data: InstructionDataModule, cfg: EstimateConfig) -> list[list[dict[str, Any]]]:
    """The micro-batches of the first ``estimate.probe_steps`` optimizer steps."""
    loader, size = iter(data.train_dataloader()), cfg.trainer.accumulate_grad_batches
    windows = [[batch for batch, _ in zip(loader, range(size), strict=False)] for _ in range(cfg.estimate.probe_steps)]
    return [batches for batches in windows if batches]


def _step(
    forward: Forward, optimizer: Any, batches: list[dict[str, Any]], cfg: TrainConfig, device: torch.device
) -> None:
    mixed = autocast_dtype(cfg.trainer.precision)
    for number, batch in enumerate(batches):
        moved = to_device(batch, device)
        with tf32(cfg.trainer.precision):
            with torch.autocast(device.type, dtype=mixed, enabled=mixed is not None):
                total, tokens = forward.loss_sum(moved)
            if number == 0:
                optimizer.zero_grad()  # after the forward pass, as Lightning does
            (total / tokens).backward()
    optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
