"""``last.ckpt`` after every validation and ``best.ckpt`` for the best monitored value, with all state for an exact resume."""

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
from llmft.utils.rng import gathered, rng_states, set_rng_states


class Checkpoints(Checkpoint):
    """Save the trainable weights and the training state, always between two optimizer steps.

    Args:
        monitor: The metric that selects the best checkpoint.
        mode: ``min``, ``max``, or ``auto`` (depends on the metric).
        every_n_steps: Optimizer steps between checkpoints, in addition to those after validations; None for none.
        run: The run directory; checkpoints go to its ``checkpoints`` folder.
    """

    def __init__(self, monitor: str, mode: str, every_n_steps: int | None = None, *, run: RunDirectory) -> None:
        self.monitor, self.sign = monitor, {"min": 1.0, "max": -1.0}[monitor_mode(monitor) if mode == "auto" else mode]
        self.every_n_steps = every_n_steps
        self.last, self.best = run.checkpoints / "last.ckpt", run.checkpoints / "best.ckpt"
        self.best_value, self.best_metrics = math.inf, {}
        self.trained: dict[str, float] = {}  # the monitored value, if it is a training metric
        self.best_step = self.saved_step = self.validated_step = -1
        self.randomness: dict[str, Any] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Link ``best.ckpt`` if ``last.ckpt`` is the best and the run was killed before the link."""
        if self.randomness is not None and self.best_step == self.saved_step and trainer.is_global_zero:
            atomic_link(self.last, self.best)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Restore the random states of the checkpoint."""
        if self.randomness is not None:
            set_rng_states(self.randomness[str(trainer.global_rank)])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep the monitored training metric; save every ``every_n_steps``, unless a validation follows (it saves)."""
        step = trainer.global_step
        if self.monitor.startswith("train/") and self.monitor in trainer.callback_metrics:
            self.trained = {self.monitor: float(trainer.callback_metrics[self.monitor])}
        due = self.every_n_steps is not None and step % self.every_n_steps == 0
        if due and not pl_module.window_open and not validation_follows(trainer, batch_idx):
            self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save after a validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            values = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
            better = self.is_better(values, trainer.global_step)
            self.save(trainer)  # includes whether it is the best, for a resumed run
            if better:
                self.keep_last(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save the last step, unless a validation did."""
        if self.saved_step != trainer.global_step:
            self.save(trainer)

    def is_better(self, metrics: dict[str, float], step: int) -> bool:
        """Whether these are the best metrics so far; a tie keeps the earlier checkpoint.

        Raises:
            UserError: The monitored metric was not logged.
            Halted: It is NaN or infinite.
        """
        metrics = {**metrics, **self.trained}
        if self.monitor not in metrics:
            raise UserError(
                f"objective={self.monitor}: was not logged; the logged metrics are {', '.join(sorted(metrics))}"
            )
        if not math.isfinite(metrics[self.monitor]):
            raise Halted(f"halted at step {step}: {self.monitor} is {metrics[self.monitor]}")
        self.validated_step = step
        better = self.sign * metrics[self.monitor] < self.best_value
        if better:
            self.best_value, self.best_metrics, self.best_step = self.sign * metrics[self.monitor], metrics, step
        return better

    def keep_last(self, trainer: pl.Trainer) -> None:
        """Link ``last.ckpt`` as ``best.ckpt``."""
        self.best_step = trainer.global_step
        if trainer.is_global_zero and self.last.exists():
            atomic_link(self.last, self.best)

    def save(self, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt``.

        Raises:
            UserError: Rank 0 could not write it; raised on every rank.
        """
        if getattr(trainer, "fast_dev_run", False):
            return
        error = None
        try:
            trainer.save_checkpoint(self.last)
        except UserError as failed:
            error = failed
            trainer.strategy.barrier("Trainer.save_checkpoint")  # the other ranks wait at this barrier
        agree(trainer.strategy, error)
        self.saved_step = trainer.global_step

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the random states of all ranks, and the state of the loops between two steps."""
        checkpoint["randomness"] = gathered(trainer, rng_states())
        checkpoint["loops"] = between_steps(checkpoint["loops"])
        if unstepped := without_state(checkpoint["optimizer_states"]):
            checkpoint["unstepped"] = unstepped
        if isinstance(stream := getattr(trainer.train_dataloader, "dataset", None), StreamingDataset):
            checkpoint["stream"] = stream.state()

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the random states until the training starts."""
        self.randomness, self.saved_step = checkpoint["randomness"], checkpoint["global_step"]

    def state_dict(self) -> dict[str, Any]:
        """The best metrics so far."""
        names = ("best_value", "best_metrics", "best_step", "validated_step", "trained")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best metrics."""
        vars(self).update(state_dict)


def validation_follows(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether Lightning validates right after this batch."""
    if not trainer.enable_validation or (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
        return False
    every = trainer.val_check_batch
    assert isinstance(every, int)
    return (batch_idx + 1) % every == 0


def between_steps(loops: dict[str, Any]) -> dict[str, Any]:
    """Lightning's loop state in the middle of an epoch, after complete batches: the only form that it resumes correctly.

    The progress of the validation loop is omitted: no checkpoint is taken inside a validation.
    """
    fit = {key: value for key, value in loops["fit_loop"].items() if "val_loop" not in key}
    batches, epochs = fit["epoch_loop.batch_progress"], fit["epoch_progress"]
    for scope in ("total", "current"):
        batches[scope]["completed"] = batches[scope]["processed"]
        begun = epochs[scope]["started"]
        epochs[scope] |= {"ready": begun, "processed": begun - 1, "completed": begun - 1}
    return {"fit_loop": fit}


def without_state(optimizer_states: list[dict[str, Any]]) -> list[Any]:
    """The keys of parameters that no optimizer step has changed yet, such as blocks that are still frozen."""
    return [
        key
        for optimizer in optimizer_states
        for group in optimizer.get("param_groups", ())  # with FSDP2, rank 0 has the state of all
        for key in group["params"]
        if key not in optimizer["state"]
    ]


def position(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """The epoch of a checkpoint, and the number of batches (per rank) already trained in it."""
    fit = checkpoint["loops"]["fit_loop"]
    return fit["epoch_progress"]["current"]["processed"], fit["epoch_loop.batch_progress"]["current"]["completed"]
