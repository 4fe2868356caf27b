"""Ctrl-C and SIGTERM: finish the optimizer step, save it, and stop; a second one stops at once."""

import signal
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from llmft.callbacks.checkpoints import Checkpoints, validation_follows

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulStop(Checkpoint):  # a Checkpoint to Lightning, so that its hooks come last
    """Raises KeyboardInterrupt between two optimizer steps, after ``last.ckpt`` is written.

    Args:
        checkpoints: Saves.
    """

    def __init__(self, *, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.asked = False
        self.before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Take the signals over (from Lightning too, which would stop in the middle of an accumulation window)."""
        self.before = {number: signal.signal(number, self._ask) for number in SIGNALS}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop after an optimizer step; where a validation follows, after it."""
        if pl_module.window_open or validation_follows(trainer, batch_idx):
            return
        if self._asked_anywhere(trainer):
            self.checkpoints.save(trainer)
            raise KeyboardInterrupt

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Stop after a validation in training; Checkpoints has saved it."""
        if trainer.state.fn == "fit" and self._asked_anywhere(trainer):
            raise KeyboardInterrupt

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Give the signals back; one that came too late for a step counts all the same."""
        self._give_back()
        if self._asked_anywhere(trainer):
            self.checkpoints.on_train_end(trainer, pl_module)
            raise KeyboardInterrupt

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Give the signals back."""
        self._give_back()

    def _ask(self, *_: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def _asked_anywhere(self, trainer: pl.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.asked
        return trainer.strategy.reduce_boolean_decision(self.asked, all=False)

    def _give_back(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


Interruption = GracefulStop  # the name in the configs of runs made before it was renamed
