"""Gradual unfreezing: ever more blocks of the model are trained, from the top down; off unless there is a schedule."""

import logging
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl

from llmft.models.peft.layer_groups import upper

log = logging.getLogger(__name__)


class Unfreezing(pl.Callback):
    """What is trained follows from the epoch or step alone, so a resumed run goes on with the same weights.

    The optimizer holds all weights from the start; it leaves alone those that have no gradient.

    Args:
        schedule: Pairs of when, and how many blocks from the top are trained from then on (``all`` for everything); None
            for no unfreezing.
        unit: ``epoch`` or ``step`` (optimizer steps): what "when" counts.
    """

    def __init__(self, schedule: Sequence[Sequence[Any]] | None, unit: str | None) -> None:
        self.schedule, self.unit = schedule, unit
        self.blocks: Any = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Unfreeze what is due; all micro-batches of a window see the same."""
        if not self.schedule:
            return
        now = trainer.global_step if self.unit == "step" else trainer.current_epoch
        blocks = [blocks for start, blocks in self.schedule if start <= now][-1]
        if blocks == self.blocks:
            return
        self.blocks = blocks
        pl_module.model.requires_grad_(False)
        chosen = upper(pl_module.model, blocks)
        for parameter in chosen:
            parameter.requires_grad_(True)
        count = sum(p.numel() for p in chosen)
        log.info("unfreeze: %s %d: %s blocks, %s weights are trained", self.unit, now, blocks, f"{count:,}")
