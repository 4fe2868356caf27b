"""``evaluate``: score a run on its test rows (or other rows) next to its base model, or score stored answers."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from llmft.config.schema import EvaluateConfig
from llmft.config.validate import check
from llmft.data.datamodule import InstructionDataModule
from llmft.evaluation import evaluator
from llmft.evaluation.evaluator import Evaluation
from llmft.evaluation.judge.judge import Judge, add_judgement, open_judge
from llmft.export import model_card
from llmft.generation.answer_file import check_output
from llmft.generation.generator import Generator
from llmft.metrics import compare, predictions
from llmft.metrics.format import print_scores
from llmft.report.html import write_report
from llmft.runs.open import open_run
from llmft.runs.record import read_record
from llmft.utils import device as devices
from llmft.utils.console import Console
from llmft.utils.errors import UserError
from llmft.utils.json import finite
from llmft.utils.logging import log_to, quiet
from llmft.utils.paths import user_path
from llmft.utils.text import json_line


def main(cfg: DictConfig) -> None:
    """Score ``run`` or ``input``."""
    quiet()
    log_to(None)
    check(cfg, EvaluateConfig)
    if (cfg.run is None) == (cfg.input is None):
        raise UserError("evaluate: pass either run=RUN or input=FILE")
    check_output(cfg.output)
    judge = open_judge(cfg.judge, _judge_file(cfg))
    found = _stored(cfg, judge) if cfg.input is not None else _run(cfg, judge)
    console = Console(highlight=False)
    if cfg.format == "json":
        console.file.write(json_line(finite(found)) + "\n")
    else:
        print_scores(found, console)


def _stored(cfg: DictConfig, judge: Judge | None) -> dict[str, Any]:
    rows = predictions.load(cfg.input)
    kept = rows if cfg.evaluate.rows is None else rows[: cfg.evaluate.rows]
    metrics = compare.chosen_metrics(cfg.evaluate)
    found = {"source": cfg.input, "split": "stored", "rows": len(kept), "of": len(rows)}
    found |= evaluator.score_predictions(kept, metrics, cfg.evaluate, cfg.seed)
    if judge:
        add_judgement(judge, kept, found, cfg.evaluate, or_fail=True)
    if cfg.output:
        predictions.save(user_path(cfg.output), kept)
    return found


def _judge_file(cfg: DictConfig) -> Path:
    """Path of ``judge.jsonl``: in the run, or next to the output (the input if there is none)."""
    return user_path(cfg.run) / "judge.jsonl" if cfg.run else user_path(cfg.output or cfg.input).parent / "judge.jsonl"


def _run(cfg: DictConfig, judge: Judge | None) -> dict[str, Any]:
    from llmft.generation.load import own_generation
    from llmft.models.backbone.open import TrainedBackbone
    from llmft.models.peft import trainable

    folder, trained = open_run(cfg.run)
    data = _rows(cfg, folder, trained)
    backbone = TrainedBackbone(folder / "model", trained)
    model = backbone.load()
    data.encode(backbone.codec)
    settings = own_generation(cfg, trained)
    generator = Generator(model, backbone.codec, settings)
    if cfg.evaluate.seeds and not settings.do_sample:
        raise UserError("evaluate.seeds: this run's answers are the same for each seed; add generation=sample")
    split = "test" if cfg.data.path is None else "train"
    evaluation = Evaluation(cfg.evaluate, backbone.family(model), data, generator, seed=cfg.seed, split=split)
    device = devices.default_device()
    if not trainable.is_adapter(trained.peft) and cfg.evaluate.base:
        evaluation.base = _evaluate_base(evaluation, backbone.family(backbone.load_base()), device)
    found = evaluation.evaluate_tuned(device) | ({"split": "given"} if cfg.data.path is not None else {})
    if judge:
        add_judgement(judge, evaluation.predictions, found, cfg.evaluate, or_fail=True)
    _write(cfg, folder, trained, evaluation, found)
    return found


def _evaluate_base(evaluation: Evaluation, base: Any, device: Any) -> Any:
    """Evaluate a separate base model (after full fine-tuning), which is freed afterwards."""
    tuned = evaluation.forward, evaluation.generator.model
    evaluation.forward, evaluation.generator.model = base, base.model
    try:
        evaluation.evaluate_base(device)
    finally:
        evaluation.forward, evaluation.generator.model = tuned
    return evaluation.base


def _rows(cfg: DictConfig, folder: Path, trained: DictConfig) -> InstructionDataModule:
    """The run's rows, split as in training, or all rows of another file.

    Raises:
        UserError: The rows do not exist, or have changed since the training.
    """
    if cfg.data.path is not None:
        split = {"train": None, "val": 0, "test": 0}
        other = {"path": cfg.data.path, "limit": cfg.data.limit, "split": split, "split_by": "position"}
        trained.data = OmegaConf.merge(trained.data, other)
    elif cfg.data.limit is not None:
        raise UserError(f"data.limit={cfg.data.limit}: needs data.path; use evaluate.rows for the run's own rows")
    try:
        data = instantiate(trained.data)()
        source = data.source
    except UserError as error:
        raise UserError(
            f"run={cfg.run}: its data cannot be read ({error}); start in the folder of the training, or pass data.path"
        ) from None
    before = (read_record(folder).get("data") or {}).get("sha256")
    if cfg.data.path is None and source.sha256 != before:
        raise UserError(
            f"run={cfg.run}: {source.given} has changed since the training, so test rows may have been trained on;"
            " restore the old file, or pass data.path to score other rows"
        )
    data.read()
    return data


def _write(cfg: DictConfig, folder: Path, trained: DictConfig, evaluation: Evaluation, found: dict[str, Any]) -> None:
    if cfg.output:
        predictions.save(user_path(cfg.output), evaluation.predictions)
    elif cfg.data.path is None:
        evaluation.save(folder, found)
        model_card.write(folder, trained)
        if cfg.report.write:
            write_report(folder, cfg.report)
