"""Instantiate the ``logger`` group; log length histograms and hyperparameters in addition to the metrics."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.loggers import TensorBoardLogger

from llmft.config.metric_names import SCORE_GROUPS
from llmft.config.schema import TrainConfig
from llmft.config.schema.callbacks import Logger
from llmft.config.swept import swept_keys
from llmft.data.preprocessing.audit import Audit
from llmft.runs.checkpoint_io import load
from llmft.training.tensorboard import LENGTHS, log_charts, log_hparams
from llmft.utils.errors import UserError
from llmft.utils.text import unresolved

# Hyperparameters for the comparison of runs on TensorBoard's HParams page.
HPARAMS = (
    *("model.name", "data.name", "data.batch_size", "data.batching", "prompt.name", "seed"),
    *("peft.name", "peft.r", "peft.alpha", "peft.dropout", "peft.quantise"),
    *("optim.lr", "optim.weight_decay", "scheduler.name", "scheduler.warmup_steps"),
    *("trainer.accumulate_grad_batches", "trainer.precision", "trainer.max_epochs", "trainer.max_steps"),
)
# Scores whose columns come first on the HParams page, behind the objective.
SCORES = ("loss", "chrf", "f1", "rougeL", "exact_match")


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
    """Log histograms of prompt and answer lengths (tokens) to TensorBoard, and set its charts."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            log_charts(logger)
            for part, lengths in (audit.lengths if audit else {}).items():
                logger.experiment.add_histogram(f"{LENGTHS}/{part}_tokens", lengths, 0)


def log_outcome(loggers: list[Any], cfg: TrainConfig, metrics: Mapping[str, float], overrides: Sequence[str]) -> None:
    """Log the hyperparameters; to TensorBoard together with the final metrics, for its HParams page.

    Its first columns are the keys that the sweep varies, or, of a single run, those of its command line.

    Args:
        loggers: Of the run.
        cfg: Its config.
        metrics: The final metrics by name.
        overrides: Of the command line.
    """
    varied = swept_keys() or [text.partition("=")[0].lstrip("+") for text in overrides]
    named = [f"{key}.name" if f"{key}.name" in HPARAMS else key for key in varied]
    more = [key for key in named if key not in HPARAMS and _is_setting(cfg, key)]
    settings = {key: _plain(cfg.select(key)) for key in (*HPARAMS, *more)}
    first = sorted(metrics, key=lambda name: _rank(name, cfg.objective))
    for logger in loggers:
        logger.log_hyperparams({key: value for key, value in settings.items() if value is not None})
        if isinstance(logger, TensorBoardLogger):
            ordered = {name: metrics[name] for name in first}
            log_hparams(logger, settings, named, ordered, only_differing=bool(swept_keys()))
            logger.save()


def _rank(name: str, objective: str) -> tuple[bool, bool, bool]:
    """The objective first, then the final scores that are looked at first, then the other final scores."""
    group, _, score = name.partition("/")
    final = group in SCORE_GROUPS.values()
    return name != objective, not (final and score in SCORES), not final


def _plain(value: Any) -> Any:
    return unresolved(value) if isinstance(value, str) else value


def _is_setting(cfg: TrainConfig, key: str) -> bool:
    """Whether a swept key has one value that can tell runs apart; paths of output cannot."""
    return key != "output_dir" and isinstance(cfg.select(key), str | int | float | bool)
