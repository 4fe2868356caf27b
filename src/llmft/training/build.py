"""A config -> the parts of a training: data module, Lightning module, generator, callbacks and trainer."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate
from torch.optim import Optimizer

from llmft.callbacks.checkpoints import Checkpoints
from llmft.callbacks.trainer_check import TrainerCheck
from llmft.config.schema import ProveConfig, TrainConfig
from llmft.config.schema.trainer import warmup_too_long
from llmft.config.swept import swept_keys
from llmft.data.datamodule import InstructionDataModule, open_data
from llmft.data.tokenization.causal import CausalCodec
from llmft.data.tokenization.codec import Codec
from llmft.evaluation.base_cache import BaseCache
from llmft.evaluation.evaluator import Evaluation
from llmft.evaluation.judge.judge import Judge, open_judge
from llmft.evaluation.retention.retention import Retention
from llmft.evaluation.retention.rows import read_rows
from llmft.evaluation.row_budget import auto_rows
from llmft.generation.generator import Generator
from llmft.models.architecture_check import check_config
from llmft.models.attention.kernels import Kernels
from llmft.models.backbone.open import Backbone
from llmft.models.distillation import teacher_of
from llmft.models.fsdp import has_no_weights, is_sharded
from llmft.models.module import InstructionModule
from llmft.models.schedule import planned_steps
from llmft.report import curves
from llmft.runs.checkpoint_check import load_last
from llmft.runs.directory import RunDirectory
from llmft.runs.resume import check_data
from llmft.training import prove, startup_log
from llmft.training.callbacks import build_callbacks
from llmft.training.trainer import TrainerSettings, build_trainer, trainer_settings
from llmft.utils.distributed import share_cores
from llmft.utils.errors import UserError
from llmft.utils.rank import is_first, rank

log = logging.getLogger(__name__)


@dataclass(repr=False)
class Parts:
    """The parts of a training; callbacks and trainer are built when they are first used.

    Attributes:
        cfg: The config, resolved.
        run: The run directory that callbacks write to.
        module: The LightningModule.
        datamodule: Read, encoded and split.
        generator: Generates answers with the module's model.
        backbone: Loads the pretrained model; has its tokenizer, codec and config.
        checkpoint: The checkpoint to resume from; None for a new training.
    """

    cfg: TrainConfig
    run: RunDirectory
    module: InstructionModule
    datamodule: InstructionDataModule
    generator: Generator
    backbone: Backbone
    checkpoint: Path | None = None

    @cached_property
    def named_callbacks(self) -> dict[str, pl.Callback]:
        """The callbacks of the config by name, in calling order."""
        self.run.path.mkdir(parents=True, exist_ok=True)
        names = ("cfg", "run", "module", "datamodule", "generator")
        return build_callbacks(self.cfg, {name: getattr(self, name) for name in names})

    @property
    def callbacks(self) -> list[pl.Callback]:
        """The callbacks of the config, in calling order."""
        return list(self.named_callbacks.values())

    @property
    def checkpoints(self) -> Checkpoints:
        """The callback that writes ``last.ckpt`` and ``best.ckpt``."""
        checkpoints = self.named_callbacks["checkpoints"]
        assert isinstance(checkpoints, Checkpoints)
        return checkpoints

    @cached_property
    def trainer(self) -> pl.Trainer:
        """Lightning's trainer with the config's settings, callbacks and loggers."""
        return build_trainer(self.cfg, self.run, self.named_callbacks, self.datamodule, self.checkpoint)

    @cached_property
    def trainer_settings(self) -> TrainerSettings:
        """Arguments for a ``lightning.Trainer`` of your own that trains as ``llmft.train`` does; prints as a table."""
        return TrainerSettings(trainer_settings(self.cfg, self.datamodule))

    def __str__(self) -> str:
        return f"{self!r}\n\n{self.trainer_settings}"

    def __repr__(self) -> str:
        return f"Parts(model={self.cfg.model.name}, data={self.cfg.data.name}, peft={self.cfg.peft.name})"

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds the complete model during training (FSDP2)."""
        return is_sharded(self.trainer.strategy)

    @property
    def device(self) -> torch.device:
        """The device that trains; the CPU with FSDP2, as one device may not hold the complete model."""
        return torch.device("cpu") if self.is_sharded else self.trainer.strategy.root_device

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The evaluation on the test rows; None without one, and on all ranks but the first."""
        if self.cfg.trainer.fast_dev_run or self.cfg.evaluate.rows == 0 or not is_first():
            return None
        rest = {"seed": self.cfg.seed, "split": "test", "objective": self.cfg.objective}
        found = Evaluation(self.cfg.evaluate, self.module.forward_pass, self.datamodule, self.generator, **rest)
        found.cache = self.base_cache
        return found

    @cached_property
    def retention(self) -> Retention | None:
        """The comparison with the base on general rows; None without one, and on all ranks but the first."""
        rows = self.cfg.evaluate.retention_rows
        if self.cfg.trainer.fast_dev_run or rows is None or not is_first():
            return None
        given = (self.cfg.evaluate, read_rows(rows), self.module.forward_pass, self.backbone.codec)
        found = Retention(*given, precision=self.cfg.trainer.precision)
        found.cache = self.base_cache
        return found

    @property
    def base_cache(self) -> BaseCache | None:
        """What the jobs of a sweep share; None outside of a sweep."""
        return BaseCache(self.run.path.parent, self.run.path.name) if swept_keys() else None

    @cached_property
    def judge(self) -> Judge | None:
        """The judge of the evaluation's answers; None without one."""
        return open_judge(self.cfg.judge, self.run.path / "judge.jsonl", self.trainer.strategy.root_device)


def build(cfg: TrainConfig, run: RunDirectory | None = None) -> Parts:
    """Read and encode the data, load the model, and connect them.

    Args:
        cfg: A checked config, its ``auto`` values resolved.
        run: The run directory; data and model are recorded in its ``run.json``. Without one, callbacks write
            to ``cfg.output_dir``, and nothing is written before they are used.

    Raises:
        UserError: The data or the model does not match the config.
    """
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    if threads := share_cores(cfg.trainer):
        log.info(threads)
    curves.reference_curve(cfg.report.reference_curve)
    if cfg.evaluate.retention_rows:
        read_rows(cfg.evaluate.retention_rows)  # faults are reported before the training
    checkpoint = _checkpoint(cfg, run) if run else None
    data = _read_data(cfg, run.record if run else {})
    backbone = Backbone.open(cfg)
    check_config(backbone.config, cfg)  # here, because the model may have been downloaded just now
    _check_frame(run.record if run else {}, backbone.codec)
    data.encode(backbone.codec)
    startup_log.log_data(data, run)
    cfg = _with_rows(cfg, data, run)
    model = backbone.load_adapted(meta=has_no_weights(cfg))
    startup_log.log_model(cfg, run, backbone, model)
    forward = backbone.family(model, Kernels.from_config(cfg), teacher_of(cfg, backbone.tokenizer))
    module = InstructionModule(forward, instantiate(cfg.optim.node()), _schedule(cfg, data))
    module.generator = generator = Generator(
        model, backbone.codec, cfg.generation.node(), precision=cfg.trainer.precision
    )
    module.attached = [TrainerCheck(cfg)]
    directory = run or RunDirectory(Path(cfg.output_dir))
    if cfg.prove.steps and is_first():
        prove.check_model(cfg, model)
        module.attached.append(
            prove.recorder(cfg, backbone, data, partial(prove.record, directory), stop=isinstance(cfg, ProveConfig))
        )
    return Parts(cfg, directory, module, data, generator, backbone, checkpoint)


def _read_data(cfg: TrainConfig, record: dict[str, Any]) -> InstructionDataModule:
    data = open_data(cfg.data)
    data.share(rank(cfg.trainer.devices), cfg.trainer.devices * cfg.trainer.num_nodes)
    check_data(data.source.given, data.source.sha256, record, data.digests())
    data.read()
    return data


def _with_rows(cfg: TrainConfig, data: InstructionDataModule, run: RunDirectory | None) -> TrainConfig:
    """The config with a number for ``evaluate.rows=auto``, which the run's ``config.yaml`` keeps."""
    if cfg.evaluate.rows != "auto":
        return cfg
    rows = {"evaluate.rows": auto_rows(cfg, data, _total_steps(cfg, data))}
    if run:
        run.resolve(rows)
    return cfg.replaced(rows)


def _check_frame(record: Mapping[str, Any], codec: Codec) -> None:
    """Check that a resumed run was trained on the ids that this version makes.

    Raises:
        UserError: It began with a version that spelled out what its chat template writes before an answer.
    """
    before = record.get("data")
    if before and "split_conversations" not in before and isinstance(codec, CausalCodec) and codec.was_spelled:
        raise UserError(
            "resume: this run was trained by a version that spelled out control tokens of its chat template in answers, so "
            "further steps would train other ids; train again (answer, chat and serve still open it)"
        )


def _schedule(cfg: TrainConfig, data: InstructionDataModule) -> Callable[[Optimizer], Any]:
    """Make the learning rate schedule from the optimizer, with as many steps as the attached trainer will take."""
    _total_steps(cfg, data)  # refuses a warm-up that never ends here, not in the middle of Trainer.fit

    def schedule_of(optimizer: Optimizer) -> Any:
        return instantiate(cfg.scheduler.node())(optimizer, total_steps=_total_steps(cfg, data))

    return schedule_of


def _total_steps(cfg: TrainConfig, data: InstructionDataModule) -> int:
    """Optimizer steps of the trainer that the data module is attached to; before that, of the config's.

    Raises:
        UserError: ``scheduler.warmup_steps`` takes as many.
    """
    limits: Any = data.trainer or cfg.trainer
    batches = data.epoch_batches()
    steps = planned_steps(batches, limits.accumulate_grad_batches, limits.max_epochs, limits.max_steps)
    if 1 <= steps <= (cfg.scheduler.warmup_steps or 0) and not cfg.trainer.fast_dev_run:
        raise UserError(warmup_too_long(cfg.scheduler.warmup_steps or 0, f"the training has {steps} steps"))
    return steps


def _checkpoint(cfg: TrainConfig, run: RunDirectory) -> Path | None:
    if not cfg.resume:
        return None
    if run.checkpoint:
        load_last(run.checkpoint)
    else:
        log.info("resume: the run has no checkpoint yet; it starts from the beginning")
        run.clear()
    return run.checkpoint
