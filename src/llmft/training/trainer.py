"""Lightning's trainer for a run, with the config's settings, callbacks and loggers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from hydra.utils import instantiate
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.utils import deterministic

from llmft.config.schema import TrainConfig
from llmft.config.schema.trainer import Trainer
from llmft.data.datamodule import InstructionDataModule
from llmft.models.fsdp import strategy_of
from llmft.runs.checkpoint_io import AtomicCheckpointIO
from llmft.runs.directory import RunDirectory
from llmft.training.loggers import loggers_of
from llmft.utils import determinism
from llmft.utils.errors import UserError
from llmft.utils.text import first_line


class TrainerSettings(dict[str, Any]):
    """Arguments of ``lightning.Trainer``; prints as a table."""

    def __str__(self) -> str:
        width = max(map(len, self))
        lines = [f"{name:<{width}}  {value!r}" for name, value in self.items()]
        return "\n".join(
            [f"{'Trainer argument':<{width}}  value", *lines, f"{'callbacks':<{width}}  [*parts.callbacks]"]
        )


def trainer_settings(cfg: TrainConfig, data: InstructionDataModule) -> dict[str, Any]:
    """Arguments of ``lightning.Trainer`` that the numbers of a training depend on.

    Raises:
        UserError: ``trainer.val_check_interval`` is longer than an epoch.
    """
    settings = {name: value for name, value in cfg.trainer.node().items() if not name.startswith("_")}
    settings["strategy"] = strategy_of(cfg.trainer)
    settings["deterministic"] = determinism.resolved(cfg.trainer)
    if not cfg.trainer.fast_dev_run:
        settings["val_check_interval"] = validation_interval(cfg.trainer, data)
    settings |= {
        "gradient_clip_val": None,  # GradientClipping clips, after the normalization by tokens
        "use_distributed_sampler": False,  # the data module shards the batches
        "num_sanity_val_steps": 0,  # the validation before training covers all rows
        "inference_mode": cfg.trainer.strategy != "fsdp",  # FSDP2 gathers and reshards parameters in place
    }
    return settings


def build_trainer(
    cfg: TrainConfig,
    run: RunDirectory,
    callbacks: Mapping[str, pl.Callback],
    data: InstructionDataModule,
    checkpoint: Path | None,
) -> pl.Trainer:
    """The trainer of a run.

    Args:
        cfg: The run's config; ``trainer`` and ``logger`` are instantiated.
        run: Where loggers and checkpoints write.
        callbacks: By their names in the config.
        data: Encoded; says how many batches an epoch has.
        checkpoint: The checkpoint to resume from; None for a new training.

    Raises:
        UserError: Lightning refuses a setting, or ``trainer.val_check_interval`` is longer than an epoch.
    """
    # deterministic mode fills each new tensor with NaN to expose reads of uninitialized memory, which costs time
    deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return instantiate(cfg.trainer.node())(
            **trainer_settings(cfg, data),
            callbacks=list(callbacks.values()),
            logger=list(loggers_of(cfg, checkpoint)),
            plugins=[AtomicCheckpointIO(), *_cluster()],
            default_root_dir=str(run.path),
            enable_model_summary=False,
            enable_progress_bar="progress" in callbacks,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {first_line(error)}") from error


def validation_interval(trainer: Trainer, data: InstructionDataModule) -> int:
    """Batches between validations: a multiple of the accumulation window, so that they fall between optimizer steps.

    Args:
        trainer: The ``trainer`` config.
        data: Encoded.

    Raises:
        UserError: An epoch has fewer batches than ``trainer.val_check_interval``.
    """
    interval, window = trainer.val_check_interval, trainer.accumulate_grad_batches
    # a stream has no epochs: a fraction is one of the complete training
    batches = data.epoch_batches() or trainer.max_steps * window
    if isinstance(interval, float):
        return min(batches, window * max(1, math.ceil(batches * interval / window)))
    if interval > batches:
        what = "the training" if data.streaming else "an epoch"
        raise UserError(f"trainer.val_check_interval={interval}: {what} has {batches} batches; lower it")
    return interval


def _cluster() -> list[Any]:
    """SLURM without Lightning's own requeueing (its checkpoint and its command line): ``resume=`` does that."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
