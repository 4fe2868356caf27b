"""``train``: the table of contents of a run."""

import functools
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from llmft import performance, session, stopped
from llmft.check import check
from llmft.commands import summary, tell
from llmft.config import user_path
from llmft.data.base import InstructionDataModule
from llmft.data.cache import remove_left
from llmft.errors import Halted, Pruned, UserError
from llmft.estimating import shortage
from llmft.evaluation import measure
from llmft.evaluation.evaluation import Evaluation
from llmft.fit import Fit
from llmft.generation import Generator
from llmft.judging.judge import Judge, add_judgement, judge_of
from llmft.loggers import log_lengths, log_outcome
from llmft.models import adapters, backbone, export, outline, schedule
from llmft.models.teacher import teacher_of
from llmft.ranks import ending_together, is_first, rank, share_cores, started_outside
from llmft.report import page, series
from llmft.resume import check_data, is_done, resumed
from llmft.rules.training import endless_warm_up
from llmft.run import RunDirectory, tidy
from llmft.shipping import card

log = logging.getLogger(__name__)

# Keys whose value may be a folder of models or adapters.
PLACES = (("model", "path"), ("peft", "adapter"), ("peft", "distill_from"))


def main(cfg: DictConfig) -> float | None:
    """Fine-tune; leaves a run directory behind and returns the objective."""
    session.quiet()
    summary.forget_peak_memory()
    job = HydraConfig.get()
    cfg.output_dir = job.runtime.output_dir
    if cfg.trainer.devices * cfg.trainer.num_nodes > 1 and started_outside() and job.mode == RunMode.RUN:
        named = [override.partition("=")[0] for override in job.overrides.task]
        if "output_dir" not in named:  # each process would name its own, by its own clock
            raise UserError("output_dir: processes that torchrun or srun starts must share one; set output_dir=DIR")
    if cfg.resume:
        cfg = resumed(cfg, job.overrides.task)
        if is_done(cfg):
            session.log_to(None)
            log.info("resume=%s: has finished, nothing to do; trainer.max_epochs=N trains for longer", cfg.resume)
            tidy(Path(cfg.output_dir))
            remove_left()
            page.write_if_due(Path(cfg.output_dir), cfg.report)
            return RunDirectory.read(Path(cfg.output_dir))["objective"]
        run = RunDirectory.go_on(Path(cfg.output_dir), cfg)
    else:
        for group, key in PLACES:  # so that the run can be used from any folder
            if (given := cfg[group].get(key)) and user_path(str(given)).is_dir():
                cfg[group][key] = str(user_path(str(given)).resolve())
        run = RunDirectory.start(Path(cfg.output_dir), cfg, job.overrides.task)
    try:
        return _told(cfg, run)
    finally:
        run.give_back()


def _told(cfg: DictConfig, run: RunDirectory) -> float | None:
    """Train; however that ends, ``run.json`` and the user are told."""
    session.log_to(run.path / "log.txt")
    try:
        check(cfg, architecture=True)
        _settle(cfg, run)
        return train(cfg, run)
    except Halted as error:
        run.end("halted", reason=str(error))
        _report(cfg, run)
        raise
    except Pruned as error:
        run.end("pruned", reason=str(error), objective=error.value)
        raise
    except KeyboardInterrupt:
        run.end("interrupted")
        raise
    except BaseException as error:
        told = stopped.explained(error, run, cfg) or error
        run.end("failed", reason=str(told) if isinstance(told, UserError) else f"{type(told).__name__}: {told}")
        if not shortage.is_shortage(error):
            raise told from (error if told is not error else error.__cause__)
        reason = shortage.reason_of(error)
    # here the frames of the training are gone, and with them its tensors
    raise shortage.explained(cfg, reason, where=run.step, kept=f"{stopped.kept(run)}; {stopped.way_on(run)} goes on")


def train(cfg: DictConfig, run: RunDirectory) -> float | None:
    """The trip: rows, codec, backbone; before, fit, after; model/."""
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    if told := share_cores(cfg.trainer):
        log.info(told)
    series.reference(cfg.report.reference_curve)
    data = instantiate(cfg.data)()
    data.share(rank(cfg.trainer.devices), cfg.trainer.devices * cfg.trainer.num_nodes)
    check_data(data.source.given, data.source.sha256, run.record)
    data.read()

    family = get_class(cfg.model._target_)
    place = backbone.locate(cfg.model, family.auto_class)
    codec, prompt = session.codec_of(cfg, backbone.load_tokenizer(place, cfg.model))
    outline.check_positions(backbone.load_config(place, cfg.model), cfg)  # of a model that was fetched just now
    data.encode(codec)
    tell.data_of(data, run)

    def build() -> Any:
        loaded = backbone.load_model(place, cfg.model, family.auto_class, cfg.peft)
        return adapters.adapt(loaded, cfg.peft, cfg.model.lora_targets)

    model = build()
    tell.model_of(cfg, run, place, prompt, adapters.parameter_counts(model, cfg.peft))
    module = family(model, instantiate(cfg.optim), _schedule(cfg, data)).tuned(cfg)
    module.teacher = teacher_of(cfg, codec.tokenizer, family)
    generator = Generator(model, codec, cfg.generation)
    checkpoint = run.checkpoint if cfg.resume else None
    if cfg.resume and not checkpoint:
        log.info("resume: the run had no checkpoint yet; it starts anew")
        run.clear()
    fit = Fit(cfg, run, module, data, generator, checkpoint)
    if fit.is_sharded:
        log.info("samples: none, trainer=fsdp shares the weights out and leaves no whole model to ask")
    fit.prove_packing()
    if not checkpoint:
        log_lengths(fit.trainer.loggers, data.audit)
    questions = [] if cfg.trainer.fast_dev_run or not is_first() else data.examples_of("test")[: cfg.questions]
    contexts = [example.context for example in questions]

    evaluation, judge = _evaluation(cfg, module, data, generator), judge_of(cfg.judge, run.path / "judge.jsonl")
    if evaluation and not measure.has_adapter(model):  # full fine-tuning leaves no base behind
        evaluation.ask_base(fit.device)
    before = run.record.get("metrics", {}).get("before") if checkpoint else None
    before_answers = generator.answers(contexts) if cfg.baseline and fit.is_sharded else []
    with ending_together(fit.trainer.strategy, lambda reason: run.end("failed", reason=reason)):
        if before is None:
            before = fit.measure() if cfg.baseline else {}
            run.update(metrics={"before": before})
        before_answers = before_answers or (generator.answers(contexts) if cfg.baseline else [])
        fit.run()
        after = fit.best(build)
        generator.model = module.model
    after_answers = generator.answers(contexts)
    if not is_first():
        return after.get(cfg.objective)
    if data.stream:
        log.info("stream: %s", data.stream.told())
        run.update(stream=data.stream.summary())
    if not cfg.trainer.fast_dev_run:
        export.save_model(run.model, generator, cfg)
        card.write(run.path, cfg)

    metrics = {
        "before": before,
        "after": after,
        "best_step": fit.checkpoints.best_step,
        "steps": fit.trainer.global_step,
    }
    scores = _evaluate(evaluation, judge, run, fit, metrics) if evaluation else None
    tests = {f"test/{name}": value for name, value in metrics.get("test", {}).items() if value is not None}
    log_outcome(fit.trainer.loggers, cfg, after | tests)
    run.finish(
        "finished", metrics=metrics, objective=after.get(cfg.objective), peak_memory_mib=summary.peak_memory_mib()
    )
    _report(cfg, run)
    if not cfg.trainer.fast_dev_run:
        card.write(run.path, cfg)
    summary.show(run, metrics, questions, before_answers, after_answers, scores, series.decisive(cfg))
    return after.get(cfg.objective)


def _settle(cfg: DictConfig, run: RunDirectory) -> None:
    choices = performance.settle(cfg)
    for key, value, why in choices:
        log.info("performance: %s=%s (%s)", key, str(value).lower() if isinstance(value, bool) else value, why)
    if choices:  # a run that goes on has settled values
        run.save_config(cfg)
        run.update(performance=[choice._asdict() for choice in choices])


def _evaluation(cfg: DictConfig, module: Any, data: InstructionDataModule, generator: Generator) -> Evaluation | None:
    if cfg.trainer.fast_dev_run or cfg.evaluate.rows == 0 or not is_first():
        return None
    return Evaluation(cfg.evaluate, module, data, generator, seed=cfg.seed, split="test")


def _evaluate(
    evaluation: Evaluation, judge: Judge | None, run: RunDirectory, fit: Fit, metrics: dict[str, Any]
) -> dict[str, Any]:
    found = evaluation.ask_tuned(fit.device)
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
        page.write_or_say(run.path, cfg.report)


def _schedule(cfg: DictConfig, data: InstructionDataModule) -> Any:
    batches, trainer = data.epoch_batches(), cfg.trainer
    steps = schedule.planned_steps(batches, trainer.accumulate_grad_batches, trainer.max_epochs, trainer.max_steps)
    if 1 <= steps <= (cfg.scheduler.get("warmup_steps") or 0) and not trainer.fast_dev_run:
        raise UserError(endless_warm_up(cfg.scheduler.warmup_steps, f"the training has {steps} steps"))
    return functools.partial(instantiate(cfg.scheduler), total_steps=steps)
