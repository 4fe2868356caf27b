"""The progress bar."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """Lightning's ``RichProgressBar`` with only the two losses, so that it fits on one line."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        """Train and validation loss."""
        metrics = super().get_metrics(trainer, pl_module)
        names = {"train/loss": "loss", "val/loss": "val"}
        return {short: metrics[name] for name, short in names.items() if name in metrics}
