"""The progress bar."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar

REDRAWS = 10  # per second


class Progress(RichProgressBar):
    """Lightning's ``RichProgressBar`` with only the two losses, so that it fits on one line."""

    def _init_progress(self, trainer: pl.Trainer) -> None:
        """Redraw 10 times per second.

        Lightning takes ``refresh_rate``, a number of batches, for the redraws per second too, and the thread that redraws
        sleeps between them: with 1, stopping the bar takes up to a second.
        """
        batches, self._refresh_rate = self._refresh_rate, self._refresh_rate and REDRAWS
        try:
            super()._init_progress(trainer)
        finally:
            self._refresh_rate = batches

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        """Train and validation loss."""
        metrics = super().get_metrics(trainer, pl_module)
        names = {"train/loss": "loss", "val/loss": "val"}
        return {short: metrics[name] for name, short in names.items() if name in metrics}
