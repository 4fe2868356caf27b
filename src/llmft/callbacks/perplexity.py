"""Perplexity: exp of the loss, of each optimizer step and of the validation set."""

import math
from typing import Any

import lightning.pytorch as pl


def perplexity(loss: float) -> float:
    """Exp of a loss in nats per token; infinite if it overflows a float, NaN if the loss is NaN."""
    return math.inf if loss >= 700 else math.exp(loss)


class Perplexity(pl.Callback):
    """Log ``train/perplexity``, exp of the ``train/loss`` of the same step, and ``val/perplexity``, exp of ``val/loss``."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Log that of the step; the loss of a distillation includes the teacher's term, so it has no perplexity."""
        if not pl_module.teacher:
            pl_module.log_exact("train/perplexity", perplexity(pl_module.window_loss))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the perplexity of each validation set."""
        for name, sums in pl_module.val_losses.items():
            pl_module.log_exact(f"{name}/perplexity", perplexity(sums.mean(trainer.strategy)[0]))
