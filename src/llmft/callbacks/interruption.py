"""Ctrl-C and SIGTERM finish the optimizer step, save a checkpoint and stop; a second signal stops at once."""

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from llmft.callbacks.checkpoints import Checkpoints, validation_follows
from llmft.utils.signals import graceful


class GracefulStop(Checkpoint):  # a subclass of Checkpoint, so that Lightning calls its hooks last
    """Raise KeyboardInterrupt between two optimizer steps, after ``last.ckpt`` is written.

    Args:
        checkpoints: Saves ``last.ckpt``.
    """

    def __init__(self, *, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.requested = False
        self.handlers = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Replace Lightning's handlers, which would stop in the middle of an accumulation window."""
        self.handlers.enter_context(graceful(self._request))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save and stop after an optimizer step; if a validation follows, after the validation."""
        if pl_module.window_open or validation_follows(trainer, batch_idx):
            return
        if self._requested_anywhere(trainer):
            self.checkpoints.save(trainer)
            raise KeyboardInterrupt

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Stop after a validation during training; Checkpoints has saved it."""
        if trainer.state.fn == "fit" and self._requested_anywhere(trainer):
            raise KeyboardInterrupt

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Restore the handlers; a signal that came after the last step still interrupts."""
        self.handlers.close()
        if self._requested_anywhere(trainer):
            self.checkpoints.on_train_end(trainer, pl_module)
            raise KeyboardInterrupt

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Restore the handlers."""
        self.handlers.close()

    def _request(self) -> None:
        self.requested = True

    def _requested_anywhere(self, trainer: pl.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.requested
        return trainer.strategy.reduce_boolean_decision(self.requested, all=False)


Interruption = GracefulStop  # the old name, which configs of stored runs hold
