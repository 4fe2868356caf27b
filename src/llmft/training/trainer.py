"""A module and its data -> measured before, fitted, and left with its best weights."""

import logging
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from torch.utils import deterministic

from llmft.callbacks.checkpoints import position
from llmft.callbacks.metrics_log import MetricsLog
from llmft.data.batching.sampler import PlannedBatchSampler
from llmft.data.datamodule import InstructionDataModule
from llmft.generation.generator import Generator
from llmft.models.fsdp import is_sharded, strategy_of
from llmft.models.module import InstructionModule
from llmft.runs.checkpoint_io import AtomicCheckpointIO, load
from llmft.runs.directory import RunDirectory
from llmft.training.callbacks import build_callbacks
from llmft.training.loggers import loggers_of
from llmft.utils.errors import UserError
from llmft.utils.signals import as_interrupt
from llmft.utils.text import first_line

log = logging.getLogger(__name__)


class TrainingRun:
    """Lightning's trainer for one run.

    Args:
        cfg: The run's config; ``trainer``, ``callbacks`` and ``logger`` are built here.
        run: Where metrics, samples and checkpoints go.
        module: What is trained.
        data: Encoded rows.
        generator: Makes the samples.
        checkpoint: Where to go on; None for a start.
    """

    def __init__(
        self,
        cfg: DictConfig,
        run: RunDirectory,
        module: InstructionModule,
        data: InstructionDataModule,
        generator: Generator,
        checkpoint: Path | None,
    ) -> None:
        self.cfg, self.module, self.data, self.checkpoint = cfg, module, data, checkpoint
        self.directory = run
        context = {"cfg": cfg, "run": run, "module": module, "datamodule": data, "generator": generator}
        callbacks = build_callbacks(cfg, context)
        self.checkpoints: Any = callbacks["checkpoints"]
        self.trainer = self._trainer(run, callbacks)
        if not cfg.trainer.fast_dev_run:
            self.trainer.val_check_interval = self._validation_interval()

    def _trainer(self, run: RunDirectory, callbacks: dict[str, Any]) -> pl.Trainer:
        # deterministic mode fills each new tensor with NaN, so that reading one too early shows; nothing reads one too early
        deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        try:
            return instantiate(self.cfg.trainer)(
                strategy=strategy_of(self.cfg.trainer),
                callbacks=list(callbacks.values()),
                logger=list(loggers_of(self.cfg, self.checkpoint)),
                plugins=[AtomicCheckpointIO(), *_cluster()],
                default_root_dir=str(run.path),
                num_sanity_val_steps=0,  # the measurement before training looks at all rows
                enable_model_summary=False,
                enable_progress_bar="progress" in callbacks,
                use_distributed_sampler=False,  # ours shares the batches out
                inference_mode=self.cfg.trainer.strategy != "fsdp",  # shares are put together again and again
            )
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise UserError(f"trainer: {first_line(error)}") from error

    def _validation_interval(self) -> int:
        """Batches between validations, a multiple of the accumulation window, so that they fall between optimizer steps."""
        interval, window = self.cfg.trainer.val_check_interval, self.cfg.trainer.accumulate_grad_batches
        # of a stream, which has no epochs, a share is one of the whole training
        batches = self.data.epoch_batches() or self.cfg.trainer.max_steps * window
        if isinstance(interval, float):
            return min(batches, window * max(1, math.ceil(batches * interval / window)))
        if interval > batches:
            what = "the training" if self.data.streaming else "an epoch"
            raise UserError(f"trainer.val_check_interval={interval}: {what} has {batches} batches; lower it")
        return interval

    def validate(self) -> dict[str, float]:
        """Metrics of the validation set with the weights as they are; empty where there is no validation."""
        if self.cfg.trainer.fast_dev_run or not self.data.encoded["val"]:
            return {}
        with as_interrupt():
            self.trainer.validate(self.module, self.data.val_dataloader(), verbose=False)
        metrics = self.trainer.callback_metrics
        return {name: float(value) for name, value in metrics.items() if name.startswith("val/")}

    def prove_packing(self) -> None:
        """Where rows are packed: compare the first line that holds several with its rows alone.

        Raises:
            UserError: The model lets them see each other.
        """
        batches = self.data.batches("train")
        lines = (line for batch in batches.fixed for line in batch if len(line) > 1)
        line = next(lines, None) if self.data.plan.batching == "packed" else None
        if line is not None:
            rows = [self.data.encoded["train"][row] for row in line]
            difference = self.module.forward_pass.check_packing(rows, self.data.pad_id)
            log.info("packing: %d rows of a line alone and together, logits differ by %.1g", len(rows), difference)

    def run(self) -> None:
        """Train, from the same random state whether something was measured before or not.

        Raises:
            KeyboardInterrupt: The user pressed Ctrl-C, or SIGTERM came.
            Halted: A guard stopped it.
        """
        # processes see different rows, so they draw different dropout
        pl.seed_everything((self.cfg.seed + self.trainer.global_rank) % 2**32, workers=True, verbose=False)
        loader = self.data.train_dataloader()
        if self.checkpoint:
            state = load(self.checkpoint)
            epoch, batches = position(state)
            log.info("resume: goes on after step %d, epoch %d, batch %d", state["global_step"], epoch, batches)
            if self.data.stream:
                self.data.stream.resume_at(batches, state["stream"])
            else:
                assert isinstance(loader.batch_sampler, PlannedBatchSampler)
                loader.batch_sampler.resume_at(epoch, batches)
            if self.is_sharded:
                self._restore_callbacks(state)
        with as_interrupt():
            checkpoint = str(self.checkpoint) if self.checkpoint else None
            validation = self.data.val_dataloader() or None
            try:
                self.trainer.fit(self.module, loader, validation, ckpt_path=checkpoint, weights_only=True)
            except BaseException:
                self.directory.step = self.trainer.global_step + 1
                raise

    def _restore_callbacks(self, state: dict[str, Any]) -> None:
        """What Lightning does before a start, but with FSDP2 only after ``on_fit_start``; and the check of the weights' names."""
        self.module.on_load_checkpoint(state)
        for callback in self.trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            callback.on_load_checkpoint(self.trainer, self.module, state)
            if callback.state_key in state["callbacks"]:
                callback.load_state_dict(deepcopy(state["callbacks"][callback.state_key]))

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds the whole model while it is trained."""
        return is_sharded(self.trainer.strategy)

    def load_best(self, build: Callable[[], Any]) -> dict[str, float]:
        """Put the best weights into the module and return their metrics; a last step that nothing validated is first.

        Args:
            build: Makes the model again, whole, where it was shared out.
        """
        if self.cfg.trainer.fast_dev_run:
            return {}
        step = self.trainer.global_step
        if not self.data.encoded["val"] or (
            self.checkpoints.validated_step != step and self.checkpoints.is_better(self.validate(), step)
        ):
            self.checkpoints.keep_last(self.trainer)
        self.trainer.strategy.barrier("best.ckpt is written")
        if self.is_sharded:
            self.module.set_model(build())
        state = load(self.checkpoints.best)
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


def _cluster() -> list[Any]:
    """SLURM without Lightning's own way to go on (a checkpoint and a command line of its own): ``resume=`` does that."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
