"""The learning rate over the optimizer steps of a run."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau


def planned_steps(batches: int | None, accumulate: int, max_epochs: int, max_steps: int) -> int:
    """Optimizer steps of a run; a short last accumulation window of an epoch is a step too.

    Args:
        batches: Batches of one epoch; None for a stream, which has no epochs.
        accumulate: Batches of one optimizer step.
        max_epochs: Epochs, -1 for no limit.
        max_steps: Optimizer steps, -1 for no limit.
    """
    if batches is None or max_epochs < 0:
        return max_steps
    by_epochs = -(-batches // accumulate) * max_epochs
    return by_epochs if max_steps < 0 else min(by_epochs, max_steps)


def warmup_schedule(optimizer: Optimizer, *, name: str, warmup_steps: float, total_steps: int) -> Any:
    """A schedule of transformers with linear warm-up, stepped once per optimizer step.

    Args:
        optimizer: The optimizer.
        name: ``constant_with_warmup``, ``linear`` or ``cosine``.
        warmup_steps: Optimizer steps, or below 1 a fraction of ``total_steps``.
        total_steps: Optimizer step at which linear and cosine reach 0.
    """
    from transformers import get_scheduler

    warmup = round(warmup_steps * total_steps) if warmup_steps < 1 else int(warmup_steps)
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps)


def plateau_schedule(
    optimizer: Optimizer,
    *,
    name: str,  # noqa: ARG001
    factor: float,
    patience: int,
    total_steps: int,  # noqa: ARG001
) -> Any:
    """Multiply the learning rate by ``factor`` after ``patience`` optimizer steps without a better training loss.

    The loss is ``train/loss``, of an accumulation window; steps count from the best one, or from the last change. ``name``
    and ``total_steps`` are unused; the other schedules take them.
    """
    return ReduceLROnPlateau(optimizer, factor=factor, patience=patience, threshold=0.0)
