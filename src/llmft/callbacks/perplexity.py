"""Perplexity: exp of the token-weighted mean loss, over the epoch so far and over the validation set."""

import math
from typing import Any

import lightning.pytorch as pl


def perplexity(loss: float) -> float:
    """Exp of a loss in nats per token; infinite if it overflows a float, NaN if the loss is NaN."""
    return math.inf if loss >= 700 else math.exp(loss)


class Perplexity(pl.Callback):
    """Log ``train/perplexity`` over the epoch so far and ``val/perplexity`` over the validation set."""

    def __init__(self) -> None:
        self.nats, self.tokens = 0.0, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Reset the epoch's sums."""
        self.nats, self.tokens = 0.0, 0

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Add the accumulation window; the loss of a distillation includes the teacher's term, so it has no perplexity."""
        if pl_module.teacher:
            return
        self.nats += pl_module.window_loss * pl_module.window_tokens
        self.tokens += pl_module.window_tokens
        pl_module.log_exact("train/perplexity", perplexity(self.nats / (self.tokens or 1)))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the perplexity of the validation set."""
        pl_module.log_exact("val/perplexity", perplexity(pl_module.val_sums.mean(trainer.strategy)[0]))

    def state_dict(self) -> dict[str, float]:
        """The epoch's sums."""
        return {"nats": self.nats, "tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the sums."""
        self.nats, self.tokens = state_dict["nats"], state_dict["tokens"]
