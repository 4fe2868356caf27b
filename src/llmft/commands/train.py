"""``train``: the table of contents of a run."""

import functools
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from llmft import session
from llmft.callbacks.checkpoints import Checkpoints
from llmft.check import check
from llmft.commands import summary
from llmft.data.base import InstructionDataModule
from llmft.errors import Halted, UserError
from llmft.generation import Generator
from llmft.models import adapters, backbone, export, schedule
from llmft.models.base import InstructionModule
from llmft.run import RunDirectory

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> float | None:
    """Fine-tune; leaves a run directory behind and returns the objective."""
    session.quiet()
    check(cfg)
    cfg.output_dir = HydraConfig.get().runtime.output_dir
    run = RunDirectory.start(Path(cfg.output_dir), cfg)
    session.log_to(run.path / "log.txt")
    try:
        objective = train(cfg, run)
    except Halted as error:
        run.finish("halted", reason=str(error))
        raise
    except KeyboardInterrupt:
        run.finish("interrupted")
        raise
    except BaseException as error:
        run.finish("failed", reason=f"{type(error).__name__}: {error}")
        raise
    return objective


def train(cfg: DictConfig, run: RunDirectory) -> float | None:
    """The trip: rows, codec, backbone, before, fit, after, model/."""
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = instantiate(cfg.data)()
    data.read()

    family = get_class(cfg.model._target_)
    place = backbone.locate(cfg.model, family.auto_class)
    codec, prompt = session.codec_of(cfg, backbone.load_tokenizer(place, cfg.model))
    session.check_positions(backbone.load_config(place, cfg.model), _budgets(cfg))
    data.encode(codec)
    _tell_data(data, run)

    model = adapters.adapt(backbone.load_model(place, cfg.model, family.auto_class), cfg.peft, cfg.model.lora_targets)
    _tell_model(cfg, run, place, prompt, adapters.parameter_counts(model))
    module = family(model, instantiate(cfg.optim), _schedule(cfg, data))
    generator = Generator(model, codec, cfg.generation)
    trainer, checkpoints = _trainer(cfg, run, data, generator)
    questions = [] if cfg.trainer.fast_dev_run else data.examples_of("test", cfg.questions)

    before = _measure(trainer, module, data) if cfg.baseline and not cfg.trainer.fast_dev_run else {}
    before_answers = generator.answers([e.context for e in questions]) if cfg.baseline else []
    _fit(trainer, module, data)
    after = _best(trainer, module, data, checkpoints, cfg)
    after_answers = generator.answers([e.context for e in questions])
    export.save_model(run.model, generator, cfg, place, data.account)

    metrics = {"before": before, "after": after, "best_step": checkpoints.best_step, "steps": trainer.global_step}
    run.finish(
        "finished", metrics=metrics, objective=after.get(cfg.objective), peak_memory_mib=summary.peak_memory_mib()
    )
    summary.show(run, metrics, questions, before_answers, after_answers)
    return after.get(cfg.objective)


def _schedule(cfg: DictConfig, data: InstructionDataModule) -> Any:
    batches = len(data.train_dataloader())
    steps = schedule.planned_steps(
        batches, cfg.trainer.accumulate_grad_batches, cfg.trainer.max_epochs, cfg.trainer.max_steps
    )
    return functools.partial(instantiate(cfg.scheduler), total_steps=steps)


def _trainer(
    cfg: DictConfig, run: RunDirectory, data: InstructionDataModule, generator: Generator
) -> tuple[pl.Trainer, Checkpoints]:
    nodes = {name: instantiate(node) for name, node in cfg.callbacks.items()}
    parts: dict[str, dict[str, Any]] = {
        "samples": {"file": run.path / "samples.jsonl", "generator": generator, "examples": data.examples_of("val", 8)},
        "checkpoints": {"folder": run.checkpoints},
        "metrics_log": {"file": run.path / "metrics.csv"},
    }
    callbacks = {name: node(**parts[name]) if name in parts else node for name, node in nodes.items()}
    trainer = instantiate(cfg.trainer)(
        callbacks=list(callbacks.values()),
        logger=[instantiate(node) for node in cfg.logger.values()],
        default_root_dir=str(run.path),
        num_sanity_val_steps=0,
        enable_checkpointing="checkpoints" in callbacks,
        enable_model_summary=False,
        enable_progress_bar="progress" in callbacks,
        use_distributed_sampler=False,
    )
    return trainer, callbacks.get("checkpoints") or Checkpoints(cfg.objective, "min", folder=run.checkpoints)


def _measure(trainer: pl.Trainer, module: InstructionModule, data: InstructionDataModule) -> dict[str, float]:
    if not data.encoded["val"]:
        return {}
    trainer.validate(module, data.val_dataloader(), verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}


def _fit(trainer: pl.Trainer, module: InstructionModule, data: InstructionDataModule) -> None:
    try:
        trainer.fit(module, data.train_dataloader(), data.val_dataloader() or None)
    except SystemExit:  # how Lightning ends on Ctrl-C
        raise KeyboardInterrupt from None


def _best(
    trainer: pl.Trainer,
    module: InstructionModule,
    data: InstructionDataModule,
    checkpoints: Checkpoints,
    cfg: DictConfig,
) -> dict[str, float]:
    """Put the best weights into the module; validates the last step first, if nothing did."""
    if cfg.trainer.fast_dev_run:
        return {}
    if not data.encoded["val"]:
        checkpoints.keep_last(trainer.global_step)
    elif checkpoints.validated_step != trainer.global_step:
        checkpoints.consider(_measure(trainer, module, data), trainer.global_step)
    state = torch.load(checkpoints.best, map_location="cpu", weights_only=True)
    module.on_load_checkpoint(state)
    module.load_state_dict(state["state_dict"], strict=False)
    return checkpoints.best_metrics


def _budgets(cfg: DictConfig) -> dict[str, int]:
    prompt = {"data.max_prompt_tokens": cfg.data.max_prompt_tokens}
    if cfg.generation.max_new_tokens > cfg.data.max_answer_tokens:
        return prompt | {"generation.max_new_tokens": cfg.generation.max_new_tokens}
    return prompt | {"data.max_answer_tokens": cfg.data.max_answer_tokens}


def _tell_data(data: InstructionDataModule, run: RunDirectory) -> None:
    for line in data.account.lines():
        log.info(line)
    sizes = {name: len(rows) for name, rows in data.encoded.items()}
    log.info("split: %s", ", ".join(f"{count} {name}" for name, count in sizes.items()))
    run.update(data={**data.account.summary(), "split": sizes})
    data.account.write_rejected(run.path / "rejected.jsonl")


def _tell_model(cfg: DictConfig, run: RunDirectory, place: str, prompt: str, counts: dict[str, int]) -> None:
    share = counts["trainable"] / counts["total"]
    log.info("model: %s (%s), prompt %s", cfg.model.name, place, prompt)
    log.info(
        "peft %s: %s of %s parameters trainable (%.2f %%)",
        cfg.peft.name,
        *(f"{counts[k]:,}" for k in ("trainable", "total")),
        100 * share,
    )
    if counts["trainable"] == 0:
        raise UserError(f"peft={cfg.peft.name}: no parameter is trainable")
    run.update(model={"name": cfg.model.name, "path": place, "prompt": prompt}, parameters=counts)
