"""The progress bar."""

import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar

from llmft.utils.progress import ProgressLine

SHOWN = {"train/loss": "loss", "val/loss": "val"}


class Progress(ProgressBar):
    """One bar for the whole training, in optimizer steps, with the time left.

    Args:
        refresh_rate: Optimizer steps between two updates; 0 turns the bar off.
        leave: Keep the finished bar on the screen.
    """

    def __init__(self, *, refresh_rate: int = 1, leave: bool = True) -> None:
        super().__init__()
        self.refresh_rate, self.leave, self.enabled = refresh_rate, leave, refresh_rate > 0
        self.line: ProgressLine | None = None
        self.batches = 0

    def disable(self) -> None:
        """Show nothing; Lightning calls it on all ranks but the first."""
        self.enabled = False

    def enable(self) -> None:
        """Show the bar again."""
        self.enabled = self.refresh_rate > 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Open the bar at the step that the training starts or resumes from."""
        steps = trainer.estimated_stepping_batches
        self._open("training", None if math.isinf(steps) else int(steps), trainer.global_step, leave=self.leave)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the bar after an optimizer step."""
        step = trainer.global_step
        if self.line and step != self.line.done and (step % self.refresh_rate == 0 or step == self.line.total):
            self.line.update(step, detail(trainer))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Say so in the bar; a validation outside of a training has a bar of its own, which it removes."""
        self.batches = 0
        if trainer.state.fn != "fit":
            batches = sum(size for size in trainer.num_val_batches if not math.isinf(size))
            self._open("validating", int(batches), unit="batches", leave=False)
        elif self.line:
            self.line.update(self.line.done, activity="validating")

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Move the bar of a validation."""
        self.batches += 1
        if self.line and trainer.state.fn != "fit":
            self.line.update(self.batches)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show the validation loss."""
        if trainer.state.fn != "fit":
            self._close()
        elif self.line:
            self.line.update(self.line.done, detail(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Leave the finished bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Leave the bar where the training stopped."""
        self._close()

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Close the bar of a training that ended otherwise."""
        self._close()

    def _open(self, what: str, total: int | None, done: int = 0, *, unit: str = "steps", leave: bool) -> None:
        if self.enabled:
            self.line = ProgressLine(what, total, done, unit=unit, leave=leave).__enter__()

    def _close(self) -> None:
        if self.line:
            self.line.close()
        self.line = None


def detail(trainer: pl.Trainer) -> str:
    """Epoch and both losses, such as ``epoch 2 loss 2.310 val 2.405``."""
    logged = trainer.callback_metrics  # a property that collects all logged values each time
    losses = [f"{short} {float(logged[name]):.3f}" for name, short in SHOWN.items() if logged.get(name) is not None]
    return " ".join([f"epoch {trainer.current_epoch + 1}", *losses])
