"""Record the first optimizer steps of a training, with the examples of their batches, for the referee."""

from collections.abc import Callable
from typing import Any, Protocol

import lightning.pytorch as pl

from llmft.referee.referee import TrainedStep
from llmft.referee.rows import TrainedRow, rows_of


class Observer(Protocol):
    """What follows a training."""

    def check(self, step: TrainedStep) -> None:
        """A step was taken; its gradients are still there."""
        ...


class StepRecorder(pl.Callback):
    """Record optimizer steps; changes nothing in the training.

    Args:
        steps: How many, from the first one. A resumed training has none to record.
        start: Makes the observer from the module, before the first step.
        finish: Called after the last recorded step, or at the end of a shorter training.
        stop: Whether the training ends there.
    """

    def __init__(
        self, steps: int, start: Callable[[Any], Observer], finish: Callable[[Any], None], *, stop: bool = False
    ) -> None:
        self.steps, self.start, self.finish, self.stop = steps, start, finish, stop
        self.observer: Observer | None = None
        self.taken = 0
        self.window: list[list[TrainedRow]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start with the weights before the first step."""
        if trainer.global_step == 0:
            self.observer = self.start(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Collect the micro-batch; hand the window over after its optimizer step."""
        if self.observer is None:
            return
        self.window.append(rows_of(batch, causal=not pl_module.model.config.is_encoder_decoder))
        if trainer.global_step == self.taken:
            return
        self.taken = trainer.global_step
        numbers = {"loss": pl_module.window_loss, "grad_norm": pl_module.grad_norm, "lr": pl_module.learning_rate}
        self.observer.check(TrainedStep(trainer.current_epoch, self.window, trainer.is_last_batch, numbers))
        self.window = []
        if self.taken == self.steps:
            self._finish()
            trainer.should_stop = trainer.should_stop or self.stop

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Report what a shorter training took."""
        self._finish()

    def _finish(self) -> None:
        if self.observer is not None:
            self.finish(self.observer)
            self.observer = None
