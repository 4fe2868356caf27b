"""Perplexity: exp of the token-weighted mean loss, of the epoch so far and of the validation set."""

import math
from typing import Any

import lightning.pytorch as pl


def perplexity(loss: float) -> float:
    """Exp of a loss in nats per token; infinite where a float cannot hold it."""
    return math.exp(loss) if loss < 700 else math.inf


class Perplexity(pl.Callback):
    """``train/perplexity`` over the epoch's optimizer steps so far, ``val/perplexity`` over the set."""

    def __init__(self) -> None:
        self.nats, self.tokens = 0.0, 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start the epoch's sums."""
        self.nats, self.tokens = 0.0, 0

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Add the window; with a teacher's part in it, a loss has no perplexity."""
        if pl_module.teacher:
            return
        self.nats += pl_module.window_loss * pl_module.window_tokens
        self.tokens += pl_module.window_tokens
        pl_module.log_exact("train/perplexity", perplexity(self.nats / max(self.tokens, 1)))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """The validation set as one."""
        pl_module.log_exact("val/perplexity", perplexity(pl_module.val_sums.mean(trainer.strategy)[0]))

    def state_dict(self) -> dict[str, float]:
        """The epoch's sums."""
        return {"nats": self.nats, "tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on summing."""
        self.nats, self.tokens = state_dict["nats"], int(state_dict["tokens"])
