"""Training throughput in tokens and rows per second, without validation and start-up."""

import time
from collections import deque
from typing import Any

import lightning.pytorch as pl


class Throughput(pl.Callback):
    """Log ``train/tokens`` (supervised so far), ``train/tokens_per_second`` and ``train/rows_per_second``.

    A token counts by its weight, if the data set has weights. The rates are averages over the last
    ``trainer.log_every_n_steps`` optimizer steps.
    """

    def __init__(self) -> None:
        self.tokens: float = 0
        self.seconds = self.started = 0.0
        self.steps: deque[tuple[float, int, float]] = deque(maxlen=1)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Average over as many steps as lie between two logged rows."""
        self.steps = deque(maxlen=trainer.log_every_n_steps)  # pyright: ignore[reportAttributeAccessIssue]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Count the tokens of the accumulation window."""
        self.tokens += pl_module.window_tokens
        pl_module.log_exact("train/tokens", float(self.tokens))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop the clock; after an optimizer step, log the rates."""
        self.seconds += time.perf_counter() - self.started
        if pl_module.window_open:
            return
        self.steps.append((pl_module.window_tokens, len(pl_module.window_places), self.seconds))
        self.seconds = 0.0
        tokens, rows, seconds = map(sum, zip(*self.steps, strict=True))
        pl_module.log_exact("train/tokens_per_second", tokens / seconds)
        pl_module.log_exact("train/rows_per_second", rows / seconds)

    def state_dict(self) -> dict[str, float]:
        """Tokens so far."""
        return {"tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the count."""
        self.tokens = state_dict["tokens"]
