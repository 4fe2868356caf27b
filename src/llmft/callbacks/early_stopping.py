"""Early stopping on the monitored metric; off unless a patience is set."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping

from llmft.config.metric_names import monitor_mode


class EarlyStopping(LightningEarlyStopping):
    """Lightning's ``EarlyStopping``; ``patience=null`` disables it.

    Args:
        monitor: The metric to monitor.
        mode: ``min``, ``max``, or ``auto`` (depends on the metric).
        patience: Validations without improvement before the training stops; None for never.
        min_delta: Minimum change that counts as an improvement, in the metric's unit.
    """

    def __init__(self, monitor: str, mode: str, patience: int | None, min_delta: float) -> None:
        mode = monitor_mode(monitor) if mode == "auto" else mode
        # after the validation, not at the end of the epoch: checkpoints are taken in between
        super().__init__(
            monitor, mode=mode, patience=patience or 0, min_delta=min_delta, check_on_train_epoch_end=False
        )
        self.off = patience is None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Check for an improvement, if enabled."""
        if not self.off:
            super().on_validation_end(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Do not continue a resumed run that had stopped early, unless the patience is longer now."""
        if not self.off and self.wait_count >= self.patience:
            trainer.should_stop = True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counters; the patience is the config's."""
        super().load_state_dict({**state_dict, "patience": self.patience})
