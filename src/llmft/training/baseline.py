"""The validation of the untrained model, whose losses the jobs of a sweep compute once.

Metrics, samples and callbacks are those of a validation; only the losses of its batches come from the first job.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from llmft.evaluation.base_cache import base_ingredients
from llmft.training.build import Parts

Losses = list[tuple[torch.Tensor, torch.Tensor]]
# Of the trainer, what changes no loss of a validation.
LENGTHS = ("max_epochs", "max_steps", "accumulate_grad_batches", "val_check_interval", "check_val_every_n_epoch")

# Of an adapter that adds zeros, what changes none of them.
OF_ZEROS = ("name", "r", "alpha", "dropout")


def baseline(parts: Parts, validate: Callable[[Parts], dict[str, float]]) -> dict[str, float]:
    """Metrics of the validation set with the untrained weights.

    Args:
        parts: Not trained yet.
        validate: Validates.
    """
    cache, rows = parts.base_cache, parts.datamodule.encoded["val"]
    if cache is None or not rows or parts.trainer.world_size > 1 or parts.cfg.trainer.fast_dev_run:
        return validate(parts)
    metrics: dict[str, float] = {}

    def compute() -> dict[str, Any]:
        with _losses(parts.module, []) as computed:
            metrics.update(validate(parts))
        return {"losses": computed}

    what = f"losses of the untrained model: {len(rows)} of {len(rows)} validation rows"
    found = cache.get(what, _ingredients(parts), compute)
    if metrics:
        return metrics
    with _losses(parts.module, found["losses"]):
        return validate(parts)


def _ingredients(parts: Parts) -> list[Any]:
    """All that decides the losses."""
    cfg, data = parts.cfg, parts.datamodule
    names = ("val", *data.extra_val)
    rows = [row for name in names for row in data.encoded[name]]
    trainer = {key: value for key, value in cfg.trainer.node().items() if key not in LENGTHS}
    settings = [
        [len(data.encoded[name]) for name in names],
        repr(data.plan),
        cfg.model.node(),
        {key: value for key, value in cfg.peft.node().items() if key not in OF_ZEROS},
        trainer,
        parts.module.forward_pass.kernels.shared_prefix,
        _trainable(parts.module.model),
    ]
    device = parts.trainer.strategy.root_device
    return base_ingredients(parts.module.forward_pass, parts.backbone.codec, rows, settings, device)


def _trainable(model: torch.nn.Module) -> str:
    """SHA-256 of the trainable weights; a fresh adapter, which adds zeros, does not count, whatever its rank and seed."""
    found, weights = hashlib.sha256(), dict(model.named_parameters())
    is_fresh = all(
        not weight.any() for name, weight in weights.items() if "lora_B" in name or "lora_embedding_B" in name
    )
    for name, weight in sorted(weights.items()):
        if weight.requires_grad and not (is_fresh and "lora_" in name):
            found.update(f"{name} {weight.dtype} {list(weight.shape)}\n".encode())
            found.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


@contextmanager
def _losses(module: Any, known: Losses) -> Iterator[Losses]:
    """Within the block the module's losses of batches are taken from a list, in order; without any they go into it."""
    forward, computed, waiting = module.forward_pass, known, iter(known) if known else None
    loss_sum = forward.loss_sum

    def taken(batch: dict[str, Any]) -> Any:
        if waiting:
            return next(waiting)
        found = loss_sum(batch)
        computed.append(tuple(part.detach().cpu() for part in found))
        return found

    forward.loss_sum = taken
    try:
        yield computed
    finally:
        del forward.loss_sum
