"""``evaluate``: score a run on its test rows (or other rows) next to its base model, or score stored answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from llmft.config.redact import redact_argument
from llmft.config.schema import EvaluateConfig, TrainConfig
from llmft.config.typed_overrides import task_overrides
from llmft.config.validate import check
from llmft.evaluation import evaluator
from llmft.evaluation.evaluator import Evaluation, save_evaluation
from llmft.evaluation.judge.judge import Judge, add_judgement, open_judge
from llmft.evaluation.partial import NAME as PARTIAL
from llmft.evaluation.partial import PartialAnswers
from llmft.evaluation.retention.result import recorded
from llmft.evaluation.retention.retention import Retention
from llmft.evaluation.retention.rows import read_rows
from llmft.evaluation.run_rows import leaks_checked, rows_of, run_of
from llmft.evaluation.runtime import RuntimeEvaluation
from llmft.export import model_card
from llmft.generation.answer_file import check_output
from llmft.generation.generator import Generator
from llmft.metrics import compare, predictions
from llmft.metrics.format import print_scores
from llmft.metrics.verdict.verdict import add_verdict
from llmft.report.html import write_report
from llmft.runs.open import open_run
from llmft.runs.read import read_evaluation
from llmft.runs.record import read_record, write_record
from llmft.runtimes.exported import ExportedFolder, open_exported
from llmft.utils import device as devices
from llmft.utils.console import Console
from llmft.utils.errors import UserError
from llmft.utils.json import finite
from llmft.utils.logging import log_to, quiet
from llmft.utils.paths import user_path
from llmft.utils.shell import command_line
from llmft.utils.text import json_line

if TYPE_CHECKING:
    from llmft.evaluation.suites.suites import Suites


def main(cfg: DictConfig) -> None:
    """Score ``run`` or ``input``."""
    quiet()
    log_to(None)
    config = check(cfg, EvaluateConfig)
    if (config.run is None) == (config.input is None):
        raise UserError("evaluate: pass either run=RUN or input=FILE")
    check_output(config.output)
    judge = open_judge(config.judge, _judge_file(config))
    try:
        found = _stored(config, judge) if config.input is not None else _run(config, judge)
    except KeyboardInterrupt as error:
        if config.run is None or not (_run_directory(config) / PARTIAL).is_file():
            raise
        again = command_line("evaluate", map(redact_argument, task_overrides()))
        raise KeyboardInterrupt(f"interrupted, the answers so far are kept; to resume: {again}") from error
    console = Console(highlight=False)
    if config.format == "json":
        console.file.write(json_line(finite(found)) + "\n")
    else:
        print_scores(found, console)


def _with_rows(config: EvaluateConfig, of_run: int | str | None) -> EvaluateConfig:
    """The config with ``evaluate.rows=auto`` as at the end of the run's training; all rows if that had no evaluation."""
    if config.evaluate.rows != "auto":
        return config
    return config.replaced({"evaluate.rows": None if of_run == "auto" else of_run or None})


def _stored(config: EvaluateConfig, judge: Judge | None) -> dict[str, Any]:
    rows = predictions.load(str(config.input))
    kept = rows[: _with_rows(config, None).evaluate.limit]
    metrics = compare.chosen_metrics(config.evaluate)
    found = {"source": config.input, "split": "stored", "rows": len(kept), "of": len(rows)}
    found |= evaluator.score_predictions(kept, metrics, config.evaluate, config.seed)
    if judge:
        add_judgement(judge, kept, found, config.evaluate, or_fail=True)
    add_verdict(found, {})
    if config.output:
        predictions.save(user_path(config.output), kept)
    return found


def _judge_file(config: EvaluateConfig) -> Path:
    """Path of ``judge.jsonl``: in the run, or next to the output (the input if there is none)."""
    folder = user_path(config.run) if config.run else user_path(config.output or str(config.input)).parent
    return folder / "judge.jsonl"


def _run(config: EvaluateConfig, judge: Judge | None) -> dict[str, Any]:
    from llmft.generation.load import own_generation
    from llmft.models.attention.kernels import Kernels
    from llmft.models.backbone.open import TrainedBackbone
    from llmft.models.dtype import to_float32
    from llmft.models.peft import trainable

    if exported := open_exported(str(config.run)):
        return _exported(config, exported, judge)
    folder, trained = open_run(str(config.run))
    config = _with_rows(config, trained.evaluate.rows)
    suites = _open_suites(config, trained)
    data = rows_of(config, folder, trained)
    backbone = TrainedBackbone(folder / "model", trained)
    model = backbone.load()
    if config.evaluate.dtype == "float32":
        to_float32(model)  # once, and for the suites too
    data.encode(backbone.codec)
    generation = own_generation(config.generation, trained.generation)
    precision = trained.trainer.precision
    generator = Generator(model, backbone.codec, generation.node(), precision=precision)
    if config.evaluate.seeds and not generation.do_sample:
        raise UserError("evaluate.seeds: this run's answers are the same for each seed; add generation=sample")
    rest = {"seed": config.seed, "split": _split(config), "objective": trained.objective}
    kernels = Kernels.from_config(trained)
    evaluation = Evaluation(config.evaluate, backbone.family(model, kernels), data, generator, **rest)
    evaluation.rows = leaks_checked(config, folder, trained, evaluation.rows, evaluation.codec)
    evaluation.partial = PartialAnswers.of_run(folder, read_record(folder))
    device, rows = devices.announced_device(), config.evaluate.retention_rows
    retention = (
        Retention(config.evaluate, read_rows(rows), evaluation.forward, backbone.codec, precision=precision)
        if rows
        else None
    )
    if not trainable.is_adapter(trained.peft) and (config.evaluate.base or retention):
        base = backbone.family(backbone.load_base(), Kernels.from_config(trained))
        _evaluate_bases(config, evaluation, retention, base, device)
        if suites and config.evaluate.base:
            suites.run("base", base.model, backbone.codec, device)
        del base
    measured = retention.evaluate_tuned(device) if retention else _measured_before(folder)
    found = _tuned(config, evaluation, device, judge, measured)
    if suites:
        suites.run_tuned(model, backbone.codec, device)
    found = _with_suites(config, folder, found, suites)
    add_verdict(found, read_record(folder))
    _write(config, folder, trained, evaluation, found)
    evaluation.partial.remove()
    return found


def _exported(config: EvaluateConfig, exported: ExportedFolder, judge: Judge | None) -> dict[str, Any]:
    """Score an exported folder, in its runtime, on the rows of the run that it was exported from."""
    from llmft.generation.load import load_exported, own_generation
    from llmft.generation.runtime_generator import RuntimeGenerator
    from llmft.models.backbone.load import family_of
    from llmft.models.backbone.open import TrainedBackbone

    if config.evaluate.retention_rows:
        raise UserError(
            f"evaluate.retention={config.evaluate.retention}: compares a run with its base; {config.run} is an exported folder"
        )
    folder, trained = open_run(run_of(config, exported))
    config = _with_rows(config, trained.evaluate.rows)
    data = rows_of(config, folder, trained)
    codec = TrainedBackbone(folder / "model", trained).codec
    suites = _open_suites(config, trained)
    data.encode(codec)
    generator = load_exported(exported, own_generation(config.generation, exported.generation))
    rest = {"seed": config.seed, "split": _split(config), "objective": trained.objective}
    if isinstance(generator, RuntimeGenerator):
        weights = exported.weights
        evaluation = RuntimeEvaluation(config.evaluate, data, generator, codec, **rest, weights=weights)
    else:
        forward = family_of(exported.model)(generator.model)
        evaluation = Evaluation(config.evaluate, forward, data, generator, **rest)
    evaluation.rows = leaks_checked(config, folder, trained, evaluation.rows, evaluation.codec)
    evaluation.partial = PartialAnswers(folder, exported.identity)
    if suites and isinstance(generator, RuntimeGenerator):
        raise UserError(f"suite: runs in PyTorch, and {config.run} is an export of form={exported.form}; pass the run")
    found = _tuned(config, evaluation, devices.default_device(), judge)
    if suites and isinstance(generator, Generator):
        suites.run_tuned(generator.model, codec, devices.default_device())
        found["suites"] = suites.scores()
    add_verdict(found, read_record(folder))
    if config.output:
        predictions.save(user_path(config.output), evaluation.predictions)
    evaluation.partial.remove()
    return found


def _run_directory(config: EvaluateConfig) -> Path:
    """Of ``run``, or of the run that an exported folder is scored on."""
    exported = open_exported(str(config.run))
    return user_path(run_of(config, exported) if exported else str(config.run))


def _open_suites(config: EvaluateConfig, trained: TrainConfig) -> "Suites | None":
    """The tasks of ``suite``, loaded before the model, as they may not be there; None without any."""
    if not config.suites:
        return None
    from llmft.evaluation.suites.suites import Suites  # imports torch

    return Suites(config, system=trained.data.system, precision=trained.trainer.precision)


def _with_suites(
    config: EvaluateConfig, folder: Path, found: dict[str, Any], suites: "Suites | None"
) -> dict[str, Any]:
    """The scores of the test rows, and those of suites, also earlier ones; with ``evaluate.rows=0`` all that the run has."""
    stored = (read_evaluation(folder) if config.data.path is None else None) or {}
    if suites and config.evaluate.rows == 0 and stored:
        found = {**stored, **({"retention": found["retention"]} if found.get("retention") else {})}
    all_suites = {**stored.get("suites", {}), **(suites.scores() if suites else {})}
    if all_suites:
        found = {**found, "suites": all_suites}
    return found


def _split(config: EvaluateConfig) -> str:
    return "test" if config.data.path is None else "train"


def _tuned(
    config: EvaluateConfig,
    evaluation: Evaluation,
    device: Any,
    judge: Judge | None,
    retention: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate the tuned model (and its base), and add the judge's scores."""
    found = evaluation.evaluate_tuned(device) | ({"split": "given"} if config.data.path is not None else {})
    found |= {"retention": retention} if retention else {}
    if judge:
        add_judgement(judge, evaluation.predictions, found, config.evaluate, or_fail=True)
    return found


def _evaluate_bases(
    config: EvaluateConfig, evaluation: Evaluation, retention: Retention | None, base: Any, device: Any
) -> None:
    """Evaluate a separate base model, on the test rows and on the general rows."""
    if retention:
        retention.evaluate_base(device, base)
    if config.evaluate.base:
        _evaluate_base(evaluation, base, device)


def _evaluate_base(evaluation: Evaluation, base: Any, device: Any) -> None:
    """Evaluate a separate base model (after full fine-tuning), which is freed afterwards."""
    tuned = evaluation.forward, evaluation.generator.model
    evaluation.forward, evaluation.generator.model = base, base.model
    try:
        evaluation.evaluate_base(device)
    finally:
        evaluation.forward, evaluation.generator.model = tuned


def _measured_before(folder: Path) -> dict[str, Any] | None:
    """The retention that an earlier evaluation of the run has measured."""
    return (read_evaluation(folder) or {}).get("retention")


def _write(
    config: EvaluateConfig, folder: Path, trained: TrainConfig, evaluation: Evaluation, found: dict[str, Any]
) -> None:
    if config.output:
        predictions.save(user_path(config.output), evaluation.predictions)
    elif config.data.path is None:
        if config.suites and config.evaluate.rows == 0:
            save_evaluation(folder / "evaluation.json", found)
        else:
            evaluation.save(folder, found)
        record = read_record(folder)
        record |= {"retention": recorded(found["retention"])} if found.get("retention") else {}
        write_record(folder, record | {"verdict": found["verdict"]} | evaluator.completed(record, found))
        model_card.write(folder, trained)
        if config.report.write:
            write_report(folder, config.report)
