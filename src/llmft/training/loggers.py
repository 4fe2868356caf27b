"""Instantiate the ``logger`` group; log length histograms and hyperparameters in addition to the metrics."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.loggers import TensorBoardLogger

from llmft.config.schema import TrainConfig
from llmft.config.schema.callbacks import Logger
from llmft.data.preprocessing.audit import Audit
from llmft.runs.checkpoint_io import load
from llmft.utils.errors import UserError
from llmft.utils.text import unresolved

# Hyperparameters for the comparison of runs on TensorBoard's HParams page.
HPARAMS = (
    *("model.name", "data.name", "data.batch_size", "data.batching", "prompt.name", "seed"),
    *("peft.name", "peft.r", "peft.alpha", "peft.dropout", "peft.quantise"),
    *("optim.lr", "optim.weight_decay", "scheduler.name", "scheduler.warmup_steps"),
    *("trainer.accumulate_grad_batches", "trainer.precision", "trainer.max_epochs", "trainer.max_steps"),
)


def loggers_of(cfg: TrainConfig, checkpoint: Path | None) -> Iterator[Any]:
    """The loggers of a run.

    Args:
        cfg: The run's config.
        checkpoint: The checkpoint to resume from; None for a new training.

    Raises:
        UserError: A logger's package is not installed.
    """
    for name, node in cfg.logger.items():
        if node is not None:
            resumed = checkpoint and node.target.endswith("TensorBoardLogger")
            # hide the events that an interrupted run wrote after its checkpoint
            options = {"purge_step": load(checkpoint)["global_step"] + 1} if checkpoint and resumed else {}
            yield _logger(name, node, options)


def _logger(name: str, node: Logger, options: Mapping[str, Any]) -> Any:
    # MLflow 3.10 and later need this to write plain files, which a self-contained run directory needs
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    wandb = sys.modules.get("wandb")
    if name == "wandb" and wandb and wandb.run:  # of the previous job of a sweep; else our metrics would go there
        wandb.finish()
    try:
        return instantiate(node.node(), **options)
    except InstantiationException as error:
        if not isinstance(error.__cause__, ModuleNotFoundError):
            raise
        raise UserError(f"logger={name}: is not installed; pip install 'llmft[{name}]'") from error


def log_lengths(loggers: list[Any], audit: Audit | None) -> None:
    """Log histograms of prompt and answer lengths (tokens) to TensorBoard."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger) and audit:
            for part, lengths in audit.lengths.items():
                logger.experiment.add_histogram(f"data/{part}_tokens", lengths, 0)


def log_outcome(loggers: list[Any], cfg: TrainConfig, metrics: Mapping[str, float]) -> None:
    """Log the hyperparameters; to TensorBoard together with the final metrics, for its HParams page."""
    settings = {key: cfg.select(key) for key in HPARAMS}
    settings = {k: unresolved(v) if isinstance(v, str) else v for k, v in settings.items() if v is not None}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            best = {name.replace("/", "/best_", 1): value for name, value in metrics.items()}
            logger.log_hyperparams(settings, best)
            logger.save()
        else:
            logger.log_hyperparams(settings)
