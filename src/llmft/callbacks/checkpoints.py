"""``last.ckpt`` after every validation, ``best.ckpt`` for the best monitored value: everything that an exact resume needs."""

import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from llmft.config.metric_names import monitor_mode
from llmft.data.preprocessing.streaming import StreamingDataset
from llmft.runs.directory import RunDirectory
from llmft.utils.distributed import agree
from llmft.utils.errors import Halted, UserError
from llmft.utils.files import atomic_link
from llmft.utils.rng import gathered, randomness, set_randomness


class Checkpoints(Checkpoint):
    """Trainable weights and the state of the training, between two optimizer steps.

    Args:
        monitor: The metric that decides which is best.
        mode: ``min``, ``max``, or ``auto`` by what is better of this metric.
        every_n_steps: Optimizer steps between checkpoints besides those of the validations; None for none.
        run: The run directory; checkpoints go to its ``checkpoints`` folder.
    """

    def __init__(self, monitor: str, mode: str, every_n_steps: int | None = None, *, run: RunDirectory) -> None:
        self.monitor, self.sign = monitor, {"min": 1.0, "max": -1.0}[monitor_mode(monitor) if mode == "auto" else mode]
        self.every_n_steps = every_n_steps
        self.last, self.best = run.checkpoints / "last.ckpt", run.checkpoints / "best.ckpt"
        self.best_value, self.best_metrics = math.inf, {}
        self.trained: dict[str, float] = {}  # the monitored value, where it is one of the last training step
        self.best_step = self.saved_step = self.validated_step = -1
        self.randomness: dict[str, Any] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Finish what a killed run had begun: ``last.ckpt`` says that it is the best."""
        if self.randomness is not None and self.best_step == self.saved_step and trainer.is_global_zero:
            atomic_link(self.last, self.best)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw on from where the checkpoint was taken."""
        if self.randomness is not None:
            set_randomness(self.randomness[str(trainer.global_rank)])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note what the step logged; save every so many steps, but where a validation follows, it saves."""
        step = trainer.global_step
        if self.monitor.startswith("train/") and self.monitor in trainer.callback_metrics:
            self.trained = {self.monitor: float(trainer.callback_metrics[self.monitor])}
        due = self.every_n_steps is not None and step % self.every_n_steps == 0
        if due and not pl_module.window_open and not validation_follows(trainer, batch_idx):
            self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save what was just measured."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            values = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
            better = self.is_better(values, trainer.global_step)
            self.save(trainer)  # with the verdict in it, so that a resumed run knows
            if better:
                self.keep_last(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save the last step, if no validation did."""
        if self.saved_step != trainer.global_step:
            self.save(trainer)

    def is_better(self, metrics: dict[str, float], step: int) -> bool:
        """Whether these are the best metrics so far (the earliest of equal ones stays).

        Raises:
            UserError: The monitored metric was not logged.
            Halted: It is not finite, so that nothing could be called best.
        """
        metrics = {**metrics, **self.trained}
        if self.monitor not in metrics:
            raise UserError(f"objective={self.monitor}: was not logged; there are {', '.join(sorted(metrics))}")
        if not math.isfinite(metrics[self.monitor]):
            raise Halted(f"halted at step {step}: {self.monitor} is {metrics[self.monitor]}")
        self.validated_step = step
        better = self.sign * metrics[self.monitor] < self.best_value
        if better:
            self.best_value, self.best_metrics, self.best_step = self.sign * metrics[self.monitor], metrics, step
        return better

    def keep_last(self, trainer: pl.Trainer) -> None:
        """Make ``last.ckpt`` the best."""
        self.best_step = trainer.global_step
        if trainer.is_global_zero and self.last.exists():
            atomic_link(self.last, self.best)

    def save(self, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt``.

        Raises:
            UserError: The first process could not; on all of them.
        """
        if getattr(trainer, "fast_dev_run", False):
            return
        error = None
        try:
            trainer.save_checkpoint(self.last)
        except UserError as failed:
            error = failed
            trainer.strategy.barrier("Trainer.save_checkpoint")  # the others wait there
        agree(trainer.strategy, error)
        self.saved_step = trainer.global_step

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the random states of all processes, and the loops as they are between two steps."""
        checkpoint["randomness"] = gathered(trainer, randomness())
        checkpoint["loops"] = between_steps(checkpoint["loops"])
        if isinstance(stream := getattr(trainer.train_dataloader, "dataset", None), StreamingDataset):
            checkpoint["stream"] = stream.state()

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the random states for the start."""
        self.randomness, self.saved_step = checkpoint["randomness"], checkpoint["global_step"]

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        names = ("best_value", "best_metrics", "best_step", "validated_step", "trained")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with it."""
        vars(self).update(state_dict)


def validation_follows(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether Lightning validates right after this batch."""
    if not trainer.enable_validation or (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
        return False
    every = trainer.val_check_batch
    assert isinstance(every, int)
    return (batch_idx + 1) % every == 0


def between_steps(loops: dict[str, Any]) -> dict[str, Any]:
    """Lightning's progress as it is in the middle of an epoch after whole batches: the one form it restarts from right.

    Validation's own progress is left out: a checkpoint stands after a validation or before the next one is due.
    """
    fit = {key: value for key, value in loops["fit_loop"].items() if "val_loop" not in key}
    batches, epochs = fit["epoch_loop.batch_progress"], fit["epoch_progress"]
    for scope in ("total", "current"):
        batches[scope]["completed"] = batches[scope]["processed"]
        begun = epochs[scope]["started"]
        epochs[scope] |= {"ready": begun, "processed": begun - 1, "completed": begun - 1}
    return {"fit_loop": fit}


def position(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """Epoch, and batches of it (for each process) that a checkpoint has behind it."""
    fit = checkpoint["loops"]["fit_loop"]
    return fit["epoch_progress"]["current"]["processed"], fit["epoch_loop.batch_progress"]["current"]["completed"]
