"""A module and its data -> measured before, fitted, and left with its best weights."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from llmft.callbacks.checkpoints import Checkpoints
from llmft.callbacks.metrics_log import MetricsLog
from llmft.data.base import InstructionDataModule
from llmft.errors import UserError
from llmft.generation import Generator
from llmft.models.base import InstructionModule
from llmft.run import RunDirectory

# What runs are compared by, on TensorBoard's HParams page.
HPARAMS = (
    *("model.name", "data.name", "data.batch_size", "data.batching", "prompt.name", "seed"),
    *("peft.name", "peft.r", "peft.alpha", "peft.dropout"),
    *("optim.lr", "optim.weight_decay", "scheduler.name", "scheduler.warmup_steps"),
    *("trainer.accumulate_grad_batches", "trainer.precision", "trainer.max_epochs", "trainer.max_steps"),
)


class Fit:
    """Lightning's trainer for one run.

    Args:
        cfg: The run's config; ``trainer``, ``callbacks`` and ``logger`` are built here.
        run: Where metrics, samples and checkpoints go.
        module: What is trained.
        data: Encoded rows.
        generator: Makes the samples.
    """

    def __init__(
        self,
        cfg: DictConfig,
        run: RunDirectory,
        module: InstructionModule,
        data: InstructionDataModule,
        generator: Generator,
    ) -> None:
        self.cfg, self.module, self.data = cfg, module, data
        parts: dict[str, dict[str, Any]] = {
            "samples": {
                "file": run.path / "samples.jsonl",
                "generator": generator,
                "examples": data.examples_of("val"),
            },
            "checkpoints": {"folder": run.checkpoints},
            "generated": {"generator": generator, "settings": cfg.evaluate, "data": data},
            "metrics_log": {"file": run.path / "metrics.csv"},
        }
        callbacks = {name: instantiate(node) for name, node in cfg.callbacks.items() if node is not None}
        callbacks |= {name: callbacks[name](**parts[name]) for name in parts if name in callbacks}
        own = Checkpoints(cfg.objective, "auto", folder=run.checkpoints)
        self.checkpoints: Checkpoints = callbacks.setdefault("checkpoints", own)
        self.trainer = self._trainer(run, callbacks)

    def _trainer(self, run: RunDirectory, callbacks: dict[str, Any]) -> pl.Trainer:
        interval, batches = self.cfg.trainer.val_check_interval, len(self.data.train_dataloader())
        if isinstance(interval, int) and interval > batches and self.cfg.trainer.check_val_every_n_epoch:
            raise UserError(f"trainer.val_check_interval={interval}: an epoch has {batches} batches; lower it")
        try:
            return instantiate(self.cfg.trainer)(
                callbacks=list(callbacks.values()),
                logger=[_logger(name, node) for name, node in self.cfg.logger.items() if node is not None],
                default_root_dir=str(run.path),
                num_sanity_val_steps=0,  # the measurement before training looks at all rows
                enable_model_summary=False,
                enable_progress_bar="progress" in callbacks,
                use_distributed_sampler=False,
            )
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise UserError(f"trainer: {str(error).splitlines()[0]}") from error

    def measure(self) -> dict[str, float]:
        """Metrics of the validation set with the weights as they are; empty where there is no validation."""
        if self.cfg.trainer.fast_dev_run or not self.data.encoded["val"]:
            return {}
        with interruptible():
            self.trainer.validate(self.module, self.data.val_dataloader(), verbose=False)
        metrics = self.trainer.callback_metrics
        return {name: float(value) for name, value in metrics.items() if name.startswith("val/")}

    def run(self) -> None:
        """Train, from the same random state whether something was measured before or not.

        Raises:
            KeyboardInterrupt: The user pressed Ctrl-C.
            Halted: A guard stopped it.
        """
        pl.seed_everything(self.cfg.seed, workers=True, verbose=False)
        with interruptible():
            self.trainer.fit(self.module, self.data.train_dataloader(), self.data.val_dataloader() or None)

    def best(self) -> dict[str, float]:
        """Put the best weights into the module and return their metrics; a last step that nothing validated is first."""
        if self.cfg.trainer.fast_dev_run:
            return {}
        step = self.trainer.global_step
        if not self.data.encoded["val"]:
            self.checkpoints.keep_last(step)
        elif self.checkpoints.validated_step != step:
            self.checkpoints.consider(self.measure(), step)
        state = torch.load(self.checkpoints.best, map_location="cpu", weights_only=True)
        self.module.on_load_checkpoint(state)
        self.module.load_state_dict(state["state_dict"], strict=False)
        return self.checkpoints.best_metrics

    @property
    def device(self) -> torch.device:
        """Where the trainer put the module; Lightning takes it back to the CPU at the end."""
        return self.trainer.strategy.root_device

    def log_test(self, scores: Mapping[str, float | None]) -> None:
        """Scores of the test rows as ``test/...``, to the last row of ``metrics.csv`` and every logger."""
        values = {f"test/{name}": value for name, value in scores.items() if value is not None}
        for callback in self.trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, MetricsLog):
                callback.add(self.trainer, values)

    def log_outcome(self, metrics: Mapping[str, float]) -> None:
        """Hyper-parameters beside the final metrics, for TensorBoard's HParams page and other loggers."""
        settings = {key: OmegaConf.select(self.cfg, key) for key in HPARAMS}
        settings = {key: value for key, value in settings.items() if value is not None}
        for logger in self.trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                best = {name.replace("/", "/best_"): value for name, value in metrics.items()}
                logger.log_hyperparams(settings, best)
                logger.save()
            else:
                logger.log_hyperparams(settings)


def _logger(name: Any, node: DictConfig) -> Any:
    # MLflow 3.10 and later refuse their plain files unless told that they are wanted; a run directory stands alone
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    wandb = sys.modules.get("wandb")
    if name == "wandb" and wandb and wandb.run:  # of the job before in a sweep; it would take ours too
        wandb.finish()
    try:
        return instantiate(node)
    except InstantiationException as error:
        if not isinstance(error.__cause__, ModuleNotFoundError):
            raise
        raise UserError(f"logger={name}: is not installed; pip install 'llmft[{name}]'") from error


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C as KeyboardInterrupt; Lightning ends the process with SystemExit instead."""
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
