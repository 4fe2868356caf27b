"""A finished training -> ``model/``, evaluation, model card, report, ``run.json`` and the end table."""

import logging
from collections.abc import Mapping
from typing import Any

from llmft.callbacks.metrics_log import MetricsLog
from llmft.config.metric_names import SCORE_GROUPS
from llmft.config.schema import TrainConfig
from llmft.evaluation.evaluator import recorded_scores
from llmft.evaluation.judge.judge import add_judgement
from llmft.evaluation.partial import PartialAnswers
from llmft.evaluation.retention.result import recorded
from llmft.export import model_card
from llmft.export.base_model import local_name, public_id
from llmft.generation import save
from llmft.metrics.verdict.verdict import add_verdict, verdict_of
from llmft.report.best_step import best_step
from llmft.report.curves import read_metrics
from llmft.report.html import write_or_warn
from llmft.runs.directory import RunDirectory
from llmft.training import summary
from llmft.training.build import Parts
from llmft.training.fit import Outcome
from llmft.training.loggers import log_outcome
from llmft.utils.memory import peak_memory_mib
from llmft.utils.rank import is_first

log = logging.getLogger(__name__)


def publish(run: RunDirectory, outcome: Outcome) -> float | None:
    """Save the model, evaluate it on the test rows, and complete the run directory; returns the objective.

    The model is saved before the evaluation, so that an error there does not lose it. Only rank 0 does anything.
    """
    parts, cfg = outcome.parts, outcome.parts.cfg
    objective = outcome.after.get(cfg.objective)
    if not is_first():
        return objective
    if stream := parts.datamodule.stream:
        trained = parts.datamodule.trained_batches()
        log.info("stream: %s", stream.describe(trained))
        run.update(stream=stream.summary(trained))
    if not cfg.trainer.fast_dev_run:
        save.save_model(run.model, parts.generator, cfg, public_id(cfg) or local_name(cfg))
        model_card.write(run.path, cfg)
    metrics = {
        "before": outcome.before,
        "after": outcome.after,
        "best_step": parts.checkpoints.best_step,
        "steps": parts.trainer.global_step,
    }
    if best := best_step(read_metrics(run.path / "metrics.csv"), *cfg.monitored()):
        metrics["best"] = best.as_dict()
    run.update(metrics=metrics, objective=objective)  # whatever becomes of the evaluation, the training is complete
    retention = evaluate_retention(parts, metrics)
    scores = evaluate(parts, metrics, retention)
    group = SCORE_GROUPS[scores["split"] if scores else "test"]
    tuned = {f"{group}/{name}": value for name, value in metrics.get(group, {}).items() if value is not None}
    log_outcome(parts.trainer.loggers, cfg, outcome.after | tuned, run.record.get("overrides") or [])
    verdict = scores["verdict"] if scores else verdict_of(None, {**run.record, "metrics": metrics}).as_dict()
    run.finish("finished", metrics=metrics, objective=objective, verdict=verdict, peak_memory_mib=peak_memory_mib())
    write_report(cfg, run)
    if not cfg.trainer.fast_dev_run:
        model_card.write(run.path, cfg)  # again, now with the scores
    answers = (outcome.answers_before, outcome.answers_after)
    few_shot = (parts.evaluation.few_shot if parts.evaluation else None) or ()
    summary.show(run, metrics, outcome.questions, *answers, scores, cfg.monitored(), few_shot=few_shot)
    return objective


def evaluate_retention(parts: Parts, metrics: dict[str, Any]) -> dict[str, Any] | None:
    """Compare the tuned model with its base on general rows, and add the numbers to ``metrics`` and ``run.json``."""
    if parts.retention is None:
        return None
    found = parts.retention.evaluate_tuned(parts.trainer.strategy.root_device)
    parts.run.update(retention=recorded(found))
    numbers = {name: found[name] for name in ("loss_before", "loss_after", "kl")}
    metrics["retention"] = numbers
    _log(parts, "retention", numbers)
    return found


def evaluate(
    parts: Parts, metrics: dict[str, Any], retention: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Evaluate on the test rows and add the scores to ``metrics``; returns the content of ``evaluation.json``."""
    evaluation, run = parts.evaluation, parts.run
    if evaluation is None:
        return None
    evaluation.partial = PartialAnswers.of_run(run.path, run.record)
    found = evaluation.evaluate_tuned(parts.trainer.strategy.root_device)
    if retention:
        found["retention"] = retention
    add_verdict(found, run.record)
    evaluation.save(run.path, found)
    evaluation.partial.remove()
    if parts.judge:
        add_judgement(parts.judge, evaluation.predictions, found, evaluation.settings, or_fail=False)
        add_verdict(found, run.record)
        evaluation.save(run.path, found)
    metrics |= recorded_scores(found)
    group = SCORE_GROUPS[found["split"]]
    _log(parts, group, metrics[group])
    return found


def _log(parts: Parts, group: str, numbers: Mapping[str, float | None]) -> None:
    """Log numbers as ``GROUP/...``, to the last row of ``metrics.csv`` and every logger."""
    values = {f"{group}/{name}": value for name, value in numbers.items() if value is not None}
    for callback in parts.callbacks:
        if isinstance(callback, MetricsLog):
            callback.add(parts.trainer, values)


def write_report(cfg: TrainConfig, run: RunDirectory) -> None:
    """Write ``report.html``, if ``report.write`` is set."""
    if not cfg.trainer.fast_dev_run and cfg.report.write:
        write_or_warn(run.path, cfg.report)
