"""Evaluate a run: generate and score answers of the tuned and the base model for the rows of a split, and write the results."""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from llmft.config.metric_names import SCORE_GROUPS
from llmft.config.schema.evaluation import Evaluate
from llmft.data.datamodule import InstructionDataModule
from llmft.data.eval_rows import first_rows
from llmft.data.records import Turn
from llmft.data.tokenization.codec import Codec
from llmft.evaluation import inference
from llmft.evaluation.base_cache import BaseCache, base_ingredients
from llmft.evaluation.few_shot import add_few_shot, few_shot_context, few_shot_result, shown_examples
from llmft.evaluation.inference import RowResult
from llmft.evaluation.partial import PartialAnswers
from llmft.generation.generator import Answer, Generator
from llmft.metrics import bootstrap, compare, predictions
from llmft.metrics.format import split_name
from llmft.metrics.metric import Metric, ScoredAnswer
from llmft.metrics.verdict.primary import primary_score
from llmft.models.dtype import answering_precision, computing_in, dtype_name
from llmft.models.forward import Forward
from llmft.models.peft import trainable
from llmft.utils.device import on_device
from llmft.utils.errors import UserError
from llmft.utils.json import write as write_json

log = logging.getLogger(__name__)


class Evaluation:
    """Evaluation of a tuned model and its base on the same rows.

    Args:
        settings: The ``evaluate`` keys.
        forward: The model.
        data: Encoded data module.
        generator: Generates the answers.
        seed: Seed of the bootstrap.
        split: Split that the rows come from.
        objective: The key of the training; it decides which score leads the verdict.
    """

    def __init__(
        self,
        settings: Evaluate,
        forward: Forward,
        data: InstructionDataModule,
        generator: Generator,
        *,
        seed: int,
        split: str,
        objective: str | None = None,
    ) -> None:
        self.settings, self.forward, self.generator, self.seed = settings, forward, generator, seed
        self.rows = first_rows(data, settings.limit, split)
        self.own, self.objective = data.metrics, objective
        self.source, self.metrics = data.source.given, compare.chosen_metrics(settings, data.metrics)
        self.base: list[RowResult] | None = None
        self.shown = shown_examples(data, settings.few_shot, self.rows.split)
        self.few_shot: list[Answer] | None = None  # the base model's answers with ``shown`` in its prompt
        self.partial: PartialAnswers | None = None  # set by ``evaluate``, which can be started again
        self.cache: BaseCache | None = None  # set in a sweep

    def evaluate_base(self, device: Any) -> None:
        """Run the base model: the model itself (before full fine-tuning), or with its adapter disabled."""
        if not (self.settings.base and self.base is None and self.rows.encoded):
            return
        with trainable.base_of(self.forward.model):
            if self.cache is None:
                found = self._run_base(device)
            else:
                what = f"base answers: {len(self.rows.encoded)} of {len(self.rows.encoded)}"
                found = self.cache.get(what, self._ingredients(device), partial(self._run_base, device))
        self.base = [RowResult(Answer(*answer), nats, tokens) for answer, nats, tokens in found["rows"]]
        self.few_shot = None if found["few_shot"] is None else [Answer(*answer) for answer in found["few_shot"]]

    def _run_base(self, device: Any) -> dict[str, Any]:
        """The results of the base on the rows, and its answers to few-shot prompts, as plain values."""
        self._announce("base")
        rows = self._run(self.generator, device, "base")
        few_shot = self._answer_few_shot(device) if self.shown else None
        return {
            "rows": [(tuple(row.answer), row.nats, row.tokens) for row in rows],
            "few_shot": None if few_shot is None else [tuple(answer) for answer in few_shot],
        }

    def _ingredients(self, device: Any) -> list[Any]:
        """All that decides what the base answers."""
        # greedy and beam search do not read the seed, which follows the run's
        unread = ("batch_size", "batch_tokens", *(() if self.generator.given.get("do_sample") else ("seed",)))
        given = {name: value for name, value in self.generator.given.items() if name not in unread}
        contexts = [[turn.message() for turn in context] for context in self._few_shot_contexts()]
        settings = [given, self.settings.dtype, self._precision(device), self.settings.batch_tokens, contexts]
        return base_ingredients(self.forward, self.codec, self.rows.encoded, settings, device)

    def _few_shot_contexts(self) -> list[tuple[Turn, ...]]:
        return [few_shot_context(example, self.shown) for example in self.rows.examples] if self.shown else []

    def _few_shot_prompts(self) -> list[list[int]]:
        return self.generator.prompts(self._few_shot_contexts(), [example.tools for example in self.rows.examples])

    def evaluate_tuned(self, device: Any) -> dict[str, Any]:
        """Run the tuned model, once or for each of ``evaluate.seeds``, and score it; run the base model if not done yet.

        Returns:
            The content of ``evaluation.json``.
        """
        started = time.perf_counter()
        self._announce("tuned")
        seeds = self.settings.seeds or [self.generator.seed]
        results = {seed: self._run(self.generator.with_settings(seed=seed), device) for seed in seeds}
        if self._has_base():
            self.evaluate_base(device)
        self.predictions = inference.to_predictions(self.rows, self.codec, results[seeds[0]], self.base)
        if self.few_shot:
            add_few_shot(self.predictions, self.few_shot)
        return {
            "source": self.source,
            "split": self.rows.split,
            "rows": len(self.predictions),
            "of": self.rows.total,
            **score_predictions(
                self.predictions, self.metrics, self.settings, self.seed, objective=self.objective, own=self.own
            ),
            "dtype": self.dtype_name(device),
            "generation": {
                **self.generator.given,
                "dtype": self.settings.dtype,
                "batch_size": None,
                "batch_tokens": self.settings.batch_tokens,
            },
            "few_shot": self._few_shot_result(),
            "seeds": self._over_seeds(results) if self.settings.seeds else None,
            "seconds": round(time.perf_counter() - started, 1),
        }

    def dtype_name(self, device: Any) -> str:
        """The dtype that answers and losses are computed in on a device."""
        return dtype_name(self.forward.model, self.settings.dtype, self._precision(device))

    def _precision(self, device: Any) -> str:
        return answering_precision(torch.device(device), self.generator.precision, self.settings.dtype)

    def save(self, folder: Path, found: dict[str, Any]) -> None:
        """Write ``predictions.jsonl``, ``evaluation.json`` and, if configured, ``evaluate.response_file``."""
        predictions.save(folder / "predictions.jsonl", self.predictions)
        if self.settings.response_file:
            answers = [prediction.answer for prediction in self.predictions]
            predictions.save_responses(folder / self.settings.response_file, self.rows.examples, answers)
        save_evaluation(folder / "evaluation.json", found)

    def _announce(self, model: str) -> None:
        rows = f"{len(self.rows.encoded)} of {self.rows.total} {split_name(self.rows.split)} rows"
        log.info("evaluating the %s model on %s", model, rows)

    def _run(self, generator: Generator, device: Any, which: str = "tuned") -> list[RowResult]:
        rows, budget, dtype = self.rows.encoded, self.settings.batch_tokens, self.settings.dtype
        generator = generator.with_settings(dtype=dtype)
        with on_device(self.forward.model, device), computing_in(self.forward.model, dtype, generator.precision):
            return inference.evaluate_rows(self.forward, generator, rows, budget, which=which, partial=self.partial)

    def _answer_few_shot(self, device: Any) -> list[Answer] | None:
        settings = self.settings
        generator = self.generator.with_settings(batch_tokens=settings.batch_tokens, dtype=settings.dtype)
        log.info("evaluating the base model again, with %d training examples in its prompt", len(self.shown))
        try:
            with on_device(self.forward.model, device):
                return inference.generate(generator, self._few_shot_prompts(), "few-shot base", self.partial)
        except UserError as error:  # the longer prompts do not fit into the model
            log.warning("evaluate.few_shot=%d: not evaluated; %s", len(self.shown), error)
            return None

    def _few_shot_result(self) -> dict[str, Any] | None:
        if self.few_shot is None:
            return None
        resamples = self.settings.resamples
        return few_shot_result(self.predictions, self.metrics, self.shown, resamples=resamples, seed=self.seed)

    @property
    def codec(self) -> Codec:
        """The codec that the rows are encoded with."""
        return self.generator.codec

    def _has_base(self) -> bool:
        """Whether the base model is in memory too: the same weights without their adapter."""
        return trainable.has_adapter(self.forward.model)

    def _over_seeds(self, results: dict[int, list[RowResult]]) -> dict[str, Any]:
        references = self.rows.references(self.codec)
        runs = {
            seed: [
                ScoredAnswer(row.answer.text, reference, row.answer.ended, row.nats, row.tokens)
                for row, reference in zip(rows, references, strict=True)
            ]
            for seed, rows in results.items()
        }
        return {"seeds": list(runs), "scores": compare.seed_spread(self.metrics, runs)}


def score_predictions(
    found: Sequence[predictions.Prediction],
    metrics: Sequence[Metric],
    settings: Evaluate,
    seed: int,
    *,
    objective: str | None = None,
    own: Sequence[Any] = (),
) -> dict[str, Any]:
    """Scores with intervals, those of the rows that are not in train apart, and which score leads the verdict.

    Args:
        found: The predictions; sets their row scores.
        metrics: To compute.
        settings: The ``evaluate`` keys.
        seed: Of the resampling.
        objective: The key of the training, if it is known.
        own: ``data.metrics``.
    """
    tables = compare.tables_of(found, metrics)
    scores = bootstrap.compare(metrics, *tables, resamples=settings.resamples, seed=seed)
    with_loss = bool(found) and all(p.nats is not None for p in found)
    primary = primary_score(objective, own, scores, with_loss=with_loss)
    needed = compare.rows_for_power(metrics, tables, primary.score, seed)
    return {
        "primary": {**primary._asdict(), "rows_for_power": needed},
        "scores": scores,
        "clean": compare.clean_scores(found, metrics, tables, resamples=settings.resamples, seed=seed),
        "resamples": settings.resamples,
        "seed": seed,
    }


def recorded_scores(found: Mapping[str, Any]) -> dict[str, Any]:
    """What ``metrics`` of ``run.json`` holds of an evaluation: the scores by split, those of the base, and the headline."""
    group = SCORE_GROUPS[found["split"]]
    tuned = {name: entry["tuned"] for name, entry in found["scores"].items()}
    base = {name: entry["base"] for name, entry in found["scores"].items() if "base" in entry}
    return {group: tuned, f"{group}_base": base, "headline": found["headline"]}


def completed(record: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What changes in ``run.json`` of a run that was interrupted in its own evaluation, when it is evaluated; else nothing."""
    metrics = record.get("metrics") or {}
    if record.get("status") != "interrupted" or "after" not in metrics:
        return {}
    return {"status": "finished", "metrics": {**metrics, **recorded_scores(found)}}


def save_evaluation(file: Path, found: dict[str, Any]) -> None:
    """Write ``evaluation.json`` atomically; NaN and infinity become null."""
    write_json(file, found, default=str)
