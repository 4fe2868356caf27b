"""Take the first optimizer steps of a training by themselves: no validation, no loggers, no checkpoints."""

from pathlib import Path
from typing import TypeVar

import lightning.pytorch as pl

from llmft.config.schema import TrainConfig
from llmft.runs.directory import RunDirectory
from llmft.training.build import Parts, build
from llmft.training.trainer import build_trainer
from llmft.utils.determinism import kept_flags
from llmft.utils.signals import as_interrupt

# Callbacks of llmft that the steps of a training depend on; the others write, show or generate.
COMPUTING = ("unfreezing", "nan_guard", "gradient_clipping")
C = TypeVar("C", bound=TrainConfig)


def train_first_steps(config: TrainConfig, folder: Path, *recorders: pl.Callback) -> Parts:
    """Train until a recorder stops it; returns the parts, with the model after these steps.

    Args:
        config: A checked config, its ``auto`` values resolved.
        folder: A folder for ``run.json``.
        recorders: Callbacks that follow the steps, besides the referee that ``prove.steps`` adds.
    """
    parts = build(only_steps(config), RunDirectory(folder))
    parts.module.attached += recorders
    callbacks = {name: callback for name, callback in parts.named_callbacks.items() if name != "checkpoints"}
    with kept_flags(), as_interrupt():
        trainer = build_trainer(parts.cfg, parts.run, callbacks, parts.datamodule, None)
        trainer.fit(parts.module, datamodule=parts.datamodule)
    return parts


def only_steps(config: C) -> C:
    """The config without what changes no step: loggers, checkpoints, validation, and callbacks that write or show."""
    callbacks = {
        name: callback.node()
        for name, callback in config.callbacks.items()
        if callback is not None and (name in COMPUTING or not callback.target.startswith("llmft."))
    }
    off = {
        "evaluate.rows": 0,
        "trainer.enable_checkpointing": False,
        "trainer.limit_val_batches": 0,
        "trainer.val_check_interval": 1.0,
    }
    return config.replaced({"callbacks": callbacks, "logger": {}, "report.reference_curve": None, **off})
