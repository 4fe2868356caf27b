"""The progress bar."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """Lightning's rich bar without the version number, which says nothing here."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        """The loss, its norm and the learning rate."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return dict(metrics)
