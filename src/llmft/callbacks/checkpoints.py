"""``last.ckpt`` after every validation, ``best.ckpt`` for the best monitored value; written whole or not at all."""

import math
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from llmft.errors import Halted, UserError
from llmft.evaluation.metric import mode_of


class Checkpoints(Checkpoint):
    """Trainable weights and the state of the training.

    Args:
        monitor: The metric that decides which is best.
        mode: ``min``, ``max``, or ``auto`` by what is better of this metric.
        folder: ``checkpoints`` of the run.
    """

    def __init__(self, monitor: str, mode: str, *, folder: Path) -> None:
        self.monitor, self.sign = monitor, {"min": 1.0, "max": -1.0}[mode_of(monitor) if mode == "auto" else mode]
        self.last, self.best = folder / "last.ckpt", folder / "best.ckpt"
        self.best_value, self.best_metrics = math.inf, {}
        self.best_step = self.saved_step = self.validated_step = -1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save what was just measured."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)
            values = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
            self.consider(values, trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save the last step, if no validation did."""
        if self.saved_step != trainer.global_step:
            self._save(trainer)

    def consider(self, metrics: dict[str, float], step: int) -> None:
        """Keep ``last.ckpt`` as ``best.ckpt`` if its metrics are the best so far (the earliest of equal ones stays).

        Raises:
            UserError: The monitored metric was not logged.
            Halted: It is not finite, so that nothing could be called best.
        """
        if self.monitor not in metrics:
            raise UserError(f"objective={self.monitor}: was not logged; there are {', '.join(sorted(metrics))}")
        if not math.isfinite(metrics[self.monitor]):
            raise Halted(f"halted at step {step}: {self.monitor} is {metrics[self.monitor]}")
        self.validated_step = step
        if self.last.exists() and self.sign * metrics[self.monitor] < self.best_value:
            self.best_value, self.best_metrics = self.sign * metrics[self.monitor], metrics
            self.keep_last(step)

    def keep_last(self, step: int) -> None:
        """Make ``last.ckpt`` the best."""
        self.best_step = step
        unfinished = self.best.with_suffix(".tmp")
        shutil.copyfile(self.last, unfinished)
        unfinished.replace(self.best)

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best_value": self.best_value, "best_metrics": self.best_metrics, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with it."""
        self.best_value, self.best_metrics = state_dict["best_value"], state_dict["best_metrics"]
        self.best_step = state_dict["best_step"]

    def _save(self, trainer: pl.Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        self.last.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.last.with_suffix(".tmp")
        trainer.save_checkpoint(unfinished)
        unfinished.replace(self.last)
        self.saved_step = trainer.global_step
