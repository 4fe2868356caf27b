"""A few real optimizer steps -> seconds of a step, and memory as it is."""

import time
from typing import Any

import torch
from hydra.utils import get_class, instantiate

from llmft.data.batching.collate import training_batch
from llmft.data.datamodule import InstructionDataModule
from llmft.estimate.memory import fullest
from llmft.models.backbone import load
from llmft.models.peft import trainable
from llmft.utils.device import autocast_dtype, runs_on_gpu, to_device
from llmft.utils.memory import peak_memory_mib
from llmft.utils.text import duration


def measure(cfg: Any, data: InstructionDataModule, place: str, *, steps: int) -> dict[str, Any]:
    """Load the model and train it for a few steps: the fullest batch first, for the memory, then others, for the time.

    Args:
        cfg: Of a training, with ``estimate.probe_steps``.
        data: Encoded rows.
        place: The model's folder.
        steps: Of the whole training, to say how long it would take.
    """
    family = get_class(cfg.model._target_)
    model = load.load_model(place, cfg.model, family.auto_class, cfg.peft)
    model = trainable.adapt(model, cfg.peft, cfg.model.lora_targets)
    device = torch.device("cuda" if runs_on_gpu(cfg.trainer) else "cpu")
    module = family(model, instantiate(cfg.optim), None).to(device).configure_kernels(cfg)
    optimizer = module.optim([p for p in module.parameters() if p.requires_grad])
    rows, window = data.encoded["train"], cfg.trainer.accumulate_grad_batches
    full = training_batch([[rows[row] for row in line] for line in fullest(data, cfg)], data.pad_id)
    for _ in range(2):  # the optimizer's states are there from the second step on
        _step(module, optimizer, [full], cfg, device)
    loader = iter(data.train_dataloader())
    windows = [
        [batch for batch, _ in zip(loader, range(window), strict=False)] for _ in range(cfg.estimate.probe_steps)
    ]
    windows = [batches for batches in windows if batches]
    started = time.perf_counter()
    for batches in windows:
        _step(module, optimizer, batches, cfg, device)
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


def _step(module: Any, optimizer: Any, batches: list[dict[str, Any]], cfg: Any, device: torch.device) -> None:
    mixed = autocast_dtype(cfg.trainer.precision)
    for batch in batches:
        moved = to_device(batch, device)
        with torch.autocast(device.type, dtype=mixed, enabled=mixed is not None):
            total, tokens = module.loss_sum(moved)
        if len(batches) == 1 or moved is batches[0]:
            optimizer.zero_grad()  # after the forward pass, as Lightning does
        (total / tokens).backward()
    optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
