"""Gradual unfreezing: train more and more blocks of the model, from the top down; off without a schedule."""

import logging
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl

from llmft.models.peft.layer_groups import upper

log = logging.getLogger(__name__)


class Unfreezing(pl.Callback):
    """Set ``requires_grad`` by the epoch or step only, so a resumed run trains the same parameters.

    The optimizer holds all parameters from the start; it skips those without a gradient.

    Args:
        schedule: Pairs of a start and the number of blocks, from the top, that are trained from then on (``all`` for all
            parameters); None to disable it.
        unit: Unit of the start: ``epoch`` or ``step`` (optimizer steps).
    """

    def __init__(self, schedule: Sequence[Sequence[Any]] | None, unit: str | None) -> None:
        self.schedule, self.unit = schedule, unit
        self.blocks: Any = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Unfreeze the blocks that are due; the same for all micro-batches of an accumulation window."""
        if not self.schedule:
            return
        current = trainer.global_step if self.unit == "step" else trainer.current_epoch
        blocks = [blocks for start, blocks in self.schedule if start <= current][-1]
        if blocks == self.blocks:
            return
        self.blocks = blocks
        pl_module.model.requires_grad_(False)
        trainable = upper(pl_module.model, blocks)
        for parameter in trainable:
            parameter.requires_grad_(True)
        count = sum(p.numel() for p in trainable)
        log.info("unfreeze: %s %d: %s blocks, %s trainable parameters", self.unit, current, blocks, f"{count:,}")
