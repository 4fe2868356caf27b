"""Tokens and rows per second of training alone, without validation and start-up."""

import time
from typing import Any

import lightning.pytorch as pl


class Throughput(pl.Callback):
    """``train/tokens`` (supervised, so far), ``train/tokens_per_second`` and ``train/rows_per_second`` (since the last log)."""

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self.started = 0.0
        self.since = [0, 0, 0.0]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Count the window's tokens and rows."""
        self.tokens += pl_module.window_tokens
        self.since[0] += pl_module.window_tokens
        self.since[1] += len(pl_module.window_places)
        pl_module.log_exact("train/tokens", float(self.tokens))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop the clock; at every logged step, divide."""
        passed = time.perf_counter() - self.started
        self.seconds += passed
        self.since[2] += passed
        tokens, rows, seconds = self.since
        if rows and (trainer.global_step == 1 or trainer.global_step % trainer.log_every_n_steps == 0):  # pyright: ignore[reportAttributeAccessIssue]
            rates = {"train/tokens_per_second": tokens / seconds, "train/rows_per_second": rows / seconds}
            for name, value in rates.items():
                pl_module.log_exact(name, value)
            self.since = [0, 0, 0.0]

    def state_dict(self) -> dict[str, float]:
        """Totals so far."""
        return {"tokens": self.tokens, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting."""
        self.tokens, self.seconds = int(state_dict["tokens"]), state_dict["seconds"]
