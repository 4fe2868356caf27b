"""The progress bar."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """Lightning's rich bar, with the two losses and nothing else, so that it keeps to one line."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        """Train and validation loss."""
        metrics = super().get_metrics(trainer, pl_module)
        names = {"train/loss": "loss", "val/loss": "val"}
        return {short: metrics[name] for name, short in names.items() if name in metrics}
