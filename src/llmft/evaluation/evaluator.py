"""The evaluation of a run: test rows asked and scored with the tuned model and its base, written beside the run."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmft.data import eval_rows
from llmft.data.datamodule import InstructionDataModule
from llmft.evaluation import inference
from llmft.evaluation.inference import RowResult
from llmft.generation.generator import Generator
from llmft.metrics import compare, predictions
from llmft.metrics.metric import ScoredAnswer
from llmft.models.forward import Forward
from llmft.models.peft import trainable
from llmft.utils.device import on_device
from llmft.utils.files import write
from llmft.utils.json import finite

log = logging.getLogger(__name__)


class Evaluation:
    """What a trained model and its base say about the same test rows.

    Args:
        settings: The ``evaluate`` keys.
        forward: The model.
        data: Encoded rows.
        generator: Makes the answers.
        seed: Of the bootstrap.
        split: Where the rows come from.
    """

    def __init__(
        self,
        settings: Any,
        forward: Forward,
        data: InstructionDataModule,
        generator: Generator,
        *,
        seed: int,
        split: str,
    ) -> None:
        self.settings, self.forward, self.generator, self.seed = settings, forward, generator, seed
        self.rows = eval_rows.asked_rows(data, settings.rows, split)
        self.source, self.metrics = data.source.given, compare.chosen_metrics(settings, data.metrics)
        self.base: list[RowResult] | None = None

    def ask_base(self, device: Any) -> None:
        """Ask the base model: the model as it is (before full fine-tuning), or with its adapter switched off."""
        if self.settings.base and self.base is None and self.rows.encoded:
            log.info("asking the base model %d of %d test rows", len(self.rows.encoded), self.rows.total)
            with trainable.base_of(self.forward.model):
                self.base = self._ask(self.generator, device)

    def ask_tuned(self, device: Any) -> dict[str, Any]:
        """Ask the tuned model, once or for each of ``evaluate.seeds``, and score; the base too if that was not done yet.

        Returns:
            The content of ``evaluation.json``.
        """
        started = time.perf_counter()
        log.info("asking the tuned model %d of %d test rows", len(self.rows.encoded), self.rows.total)
        seeds = self.settings.seeds or [self.generator.seed]
        told = {seed: self._ask(self.generator.with_settings(seed=seed), device) for seed in seeds}
        if trainable.has_adapter(self.forward.model):
            self.ask_base(device)
        self.predictions = inference.predictions(self.rows, self.generator.codec, told[seeds[0]], self.base)
        found = {
            "source": self.source,
            "split": self.rows.split,
            "rows": len(self.predictions),
            "of": self.rows.total,
            **scored(self.predictions, self.metrics, self.settings, self.seed),
            "generation": {**self.generator.given, "batch_size": None, "batch_tokens": self.settings.batch_tokens},
            "seeds": self._spread(told) if self.settings.seeds else None,
            "seconds": round(time.perf_counter() - started, 1),
        }
        return found

    def save(self, folder: Path, found: dict[str, Any]) -> None:
        """``predictions.jsonl``, ``evaluation.json``, and the Alpaca experiment's file where asked for."""
        predictions.save(folder / "predictions.jsonl", self.predictions)
        if self.settings.response_file:
            answers = [prediction.answer for prediction in self.predictions]
            predictions.save_responses(folder / self.settings.response_file, self.rows.examples, answers)
        save(folder / "evaluation.json", found)

    def _ask(self, generator: Generator, device: Any) -> list[RowResult]:
        with on_device(self.forward.model, device):
            return inference.ask(self.forward, generator, self.rows.encoded, self.settings.batch_tokens)

    def _spread(self, told: dict[int, list[RowResult]]) -> dict[str, Any]:
        runs = {
            seed: [
                ScoredAnswer(one.answer.text, example.answer, one.answer.ended, one.nats, one.tokens)
                for one, example in zip(answers, self.rows.examples, strict=True)
            ]
            for seed, answers in told.items()
        }
        return {"seeds": list(runs), "scores": compare.spread(self.metrics, runs)}


def scored(found: Sequence[predictions.Prediction], metrics: Any, settings: Any, seed: int) -> dict[str, Any]:
    """Scores with intervals, and what they say in a sentence."""
    scores = compare.score(found, metrics, resamples=settings.resamples, seed=seed)
    return {"headline": compare.headline(scores), "scores": scores, "resamples": settings.resamples, "seed": seed}


def save(file: Path, found: dict[str, Any]) -> None:
    """Valid JSON, whole or not at all."""
    write(file, json.dumps(finite(found), indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")
