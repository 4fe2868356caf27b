"""``train``: the table of contents of a run."""

import functools
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

from llmft.config import auto_values
from llmft.config.schema.trainer import warmup_too_long
from llmft.config.validate import check
from llmft.data.datamodule import InstructionDataModule
from llmft.data.preprocessing.cache import remove_stale
from llmft.estimate import oom_report
from llmft.evaluation.evaluator import Evaluation
from llmft.evaluation.judge.judge import Judge, add_judgement, open_judge
from llmft.export import model_card
from llmft.generation import save
from llmft.generation.generator import Generator
from llmft.models import architecture_check, schedule
from llmft.models.architecture_check import architecture_faults
from llmft.models.attention.kernels import Kernels
from llmft.models.backbone.open import Backbone
from llmft.models.distillation import teacher_of
from llmft.models.forward import Forward
from llmft.models.module import InstructionModule
from llmft.models.peft import trainable
from llmft.report import curves
from llmft.report.html import write_if_outdated, write_or_warn
from llmft.runs import failure_message
from llmft.runs.directory import RunDirectory, tidy
from llmft.runs.record import read_record
from llmft.runs.resume import check_data, is_done, resumed
from llmft.training import startup_log, summary
from llmft.training.loggers import log_lengths, log_outcome
from llmft.training.trainer import TrainingRun
from llmft.utils import oom
from llmft.utils.distributed import ending_together, share_cores
from llmft.utils.errors import Halted, Pruned, UserError
from llmft.utils.logging import log_to, quiet
from llmft.utils.memory import forget_peak_memory, peak_memory_mib
from llmft.utils.paths import user_path
from llmft.utils.rank import is_first, rank, started_outside
from llmft.utils.text import first_line

log = logging.getLogger(__name__)

# Keys whose value may be a folder of models or adapters.
PLACES = (("model", "path"), ("peft", "adapter"), ("peft", "distill_from"))


def main(cfg: DictConfig) -> float | None:
    """Fine-tune; leaves a run directory behind and returns the objective."""
    quiet()
    forget_peak_memory()
    job = HydraConfig.get()
    cfg.output_dir = job.runtime.output_dir
    if cfg.trainer.devices * cfg.trainer.num_nodes > 1 and started_outside() and job.mode == RunMode.RUN:
        named = [override.partition("=")[0] for override in job.overrides.task]
        if "output_dir" not in named:  # each process would name its own, by its own clock
            raise UserError("output_dir: processes that torchrun or srun starts must share one; set output_dir=DIR")
    if cfg.resume:
        cfg = resumed(cfg, job.overrides.task)
        if is_done(cfg):
            log_to(None)
            log.info("resume=%s: has finished, nothing to do; trainer.max_epochs=N trains for longer", cfg.resume)
            tidy(Path(cfg.output_dir))
            remove_stale()
            write_if_outdated(Path(cfg.output_dir), cfg.report)
            return read_record(Path(cfg.output_dir))["objective"]
        run = RunDirectory.resume(Path(cfg.output_dir), cfg)
    else:
        for group, key in PLACES:  # so that the run can be used from any folder
            if (given := cfg[group].get(key)) and user_path(str(given)).is_dir():
                cfg[group][key] = str(user_path(str(given)).resolve())
        run = RunDirectory.start(Path(cfg.output_dir), cfg, job.overrides.task)
    try:
        return train_and_record(cfg, run)
    finally:
        run.release()


def train_and_record(cfg: DictConfig, run: RunDirectory) -> float | None:
    """Train; however that ends, ``run.json`` and the user are told."""
    log_to(run.path / "log.txt")
    try:
        check(cfg, architecture=architecture_faults)
        _settle(cfg, run)
        return train(cfg, run)
    except Halted as error:
        run.fail("halted", reason=str(error))
        _report(cfg, run)
        raise
    except Pruned as error:
        run.fail("pruned", reason=str(error), objective=error.value)
        raise
    except KeyboardInterrupt:
        run.fail("interrupted")
        raise
    except BaseException as error:
        told = failure_message.explain_failure(error, run, cfg) or error
        run.fail("failed", reason=str(told) if isinstance(told, UserError) else f"{type(told).__name__}: {told}")
        if not oom.is_shortage(error):
            raise told from (error if told is not error else error.__cause__)
        reason = first_line(error)
    # here the frames of the training are gone, and with them its tensors
    raise oom_report.out_of_memory_error(
        cfg, reason, where=run.step, kept=f"{failure_message.kept(run)}; {failure_message.way_on(run)} goes on"
    )


def train(cfg: DictConfig, run: RunDirectory) -> float | None:
    """The trip: rows, codec, backbone; before, fit, after; model/."""
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    if told := share_cores(cfg.trainer):
        log.info(told)
    curves.reference_curve(cfg.report.reference_curve)
    data = instantiate(cfg.data)()
    data.share(rank(cfg.trainer.devices), cfg.trainer.devices * cfg.trainer.num_nodes)
    check_data(data.source.given, data.source.sha256, run.record)
    data.read()

    backbone = Backbone.open(cfg)
    architecture_check.check_positions(backbone.config, cfg)  # of a model that was downloaded just now
    data.encode(backbone.codec)
    startup_log.data_of(data, run)

    model = backbone.load_adapted()
    counts = trainable.parameter_counts(model, cfg.peft)
    startup_log.model_of(cfg, run, backbone.path, backbone.prompt_name, counts)
    forward = backbone.family(model, Kernels.from_config(cfg), teacher_of(cfg, backbone.tokenizer))
    module = InstructionModule(forward, instantiate(cfg.optim), _schedule(cfg, data))
    generator = Generator(model, backbone.codec, cfg.generation)
    checkpoint = run.checkpoint if cfg.resume else None
    if cfg.resume and not checkpoint:
        log.info("resume: the run had no checkpoint yet; it starts anew")
        run.clear()
    fit = TrainingRun(cfg, run, module, data, generator, checkpoint)
    if fit.is_sharded:
        log.info("samples: none, trainer=fsdp shares the weights out and leaves no whole model to ask")
    fit.prove_packing()
    if not checkpoint:
        log_lengths(fit.trainer.loggers, data.audit)
    questions = [] if cfg.trainer.fast_dev_run or not is_first() else data.examples_of("test")[: cfg.questions]
    contexts = [example.context for example in questions]

    evaluation, judge = _evaluation(cfg, forward, data, generator), open_judge(cfg.judge, run.path / "judge.jsonl")
    if evaluation and not trainable.has_adapter(model):  # full fine-tuning leaves no base behind
        evaluation.evaluate_base(fit.device)
    before = run.record.get("metrics", {}).get("before") if checkpoint else None
    before_answers = generator.answers(contexts) if cfg.baseline and fit.is_sharded else []
    with ending_together(fit.trainer.strategy, lambda reason: run.fail("failed", reason=reason)):
        if before is None:
            before = fit.validate() if cfg.baseline else {}
            run.update(metrics={"before": before})
        before_answers = before_answers or (generator.answers(contexts) if cfg.baseline else [])
        fit.run()
        after = fit.load_best(backbone.load_adapted)
        generator.model = module.model
    after_answers = generator.answers(contexts)
    if not is_first():
        return after.get(cfg.objective)
    if data.stream:
        log.info("stream: %s", data.stream.describe())
        run.update(stream=data.stream.summary())
    if not cfg.trainer.fast_dev_run:
        save.save_model(run.model, generator, cfg)
        model_card.write(run.path, cfg)

    metrics = {
        "before": before,
        "after": after,
        "best_step": fit.checkpoints.best_step,
        "steps": fit.trainer.global_step,
    }
    scores = _evaluate(evaluation, judge, run, fit, metrics) if evaluation else None
    tests = {f"test/{name}": value for name, value in metrics.get("test", {}).items() if value is not None}
    log_outcome(fit.trainer.loggers, cfg, after | tests)
    run.finish("finished", metrics=metrics, objective=after.get(cfg.objective), peak_memory_mib=peak_memory_mib())
    _report(cfg, run)
    if not cfg.trainer.fast_dev_run:
        model_card.write(run.path, cfg)
    summary.show(run, metrics, questions, before_answers, after_answers, scores, curves.checkpoint_monitor(cfg))
    return after.get(cfg.objective)


def _settle(cfg: DictConfig, run: RunDirectory) -> None:
    choices = auto_values.resolve_auto(cfg)
    for key, value, why in choices:
        log.info("performance: %s=%s (%s)", key, str(value).lower() if isinstance(value, bool) else value, why)
    if choices:  # a run that goes on has settled values
        run.save_config(cfg)
        run.update(performance=[choice._asdict() for choice in choices])


def _evaluation(
    cfg: DictConfig, forward: Forward, data: InstructionDataModule, generator: Generator
) -> Evaluation | None:
    if cfg.trainer.fast_dev_run or cfg.evaluate.rows == 0 or not is_first():
        return None
    return Evaluation(cfg.evaluate, forward, data, generator, seed=cfg.seed, split="test")


def _evaluate(
    evaluation: Evaluation, judge: Judge | None, run: RunDirectory, fit: TrainingRun, metrics: dict[str, Any]
) -> dict[str, Any]:
    found = evaluation.evaluate_tuned(fit.device)
    evaluation.save(run.path, found)
    if judge:
        add_judgement(judge, evaluation.predictions, found, evaluation.settings, or_fail=False)
        evaluation.save(run.path, found)
    tuned = {name: entry["tuned"] for name, entry in found["scores"].items()}
    base = {name: entry["base"] for name, entry in found["scores"].items() if "base" in entry}
    metrics |= {"test": tuned, "test_base": base, "headline": found["headline"]}
    fit.log_test(tuned)
    return found


def _report(cfg: DictConfig, run: RunDirectory) -> None:
    if not cfg.trainer.fast_dev_run and cfg.report.write:
        write_or_warn(run.path, cfg.report)


def _schedule(cfg: DictConfig, data: InstructionDataModule) -> Any:
    batches, trainer = data.epoch_batches(), cfg.trainer
    steps = schedule.planned_steps(batches, trainer.accumulate_grad_batches, trainer.max_epochs, trainer.max_steps)
    if 1 <= steps <= (cfg.scheduler.get("warmup_steps") or 0) and not trainer.fast_dev_run:
        raise UserError(warmup_too_long(cfg.scheduler.warmup_steps, f"the training has {steps} steps"))
    return functools.partial(instantiate(cfg.scheduler), total_steps=steps)
