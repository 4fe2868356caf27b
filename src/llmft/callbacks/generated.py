"""Scores of generated answers at every validation: ``val/bleu``, ``val/f1``, ...; off by default."""

from typing import Any

import lightning.pytorch as pl

from llmft.config.schema import TrainConfig
from llmft.data.datamodule import InstructionDataModule
from llmft.data.eval_rows import first_rows
from llmft.generation.generator import Generator
from llmft.metrics.compare import chosen_metrics, corpus_scores
from llmft.metrics.metric import ScoredAnswer


class GenerationMetrics(pl.Callback):
    """Generate answers for the first ``evaluate.rows`` validation rows and log their scores.

    Every rank does, so that all ranks agree which checkpoint is best.

    Args:
        enabled: Whether to score generated answers.
        generator: Generates the answers.
        cfg: The run's config; its ``evaluate`` keys set the number of rows and the metrics.
        datamodule: The encoded rows.
    """

    def __init__(
        self, *, enabled: bool, generator: Generator, cfg: TrainConfig, datamodule: InstructionDataModule
    ) -> None:
        self.rows, self.metrics = None, []
        self.generator = generator.with_settings(batch_tokens=cfg.evaluate.batch_tokens)
        if enabled and datamodule.encoded["val"]:
            self.rows = first_rows(datamodule, cfg.evaluate.limit, "val")
            chosen = chosen_metrics(cfg.evaluate, datamodule.metrics)
            self.metrics = [metric for metric in chosen if metric.name not in ("loss", "perplexity")]

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Generate and score; a metric that is undefined on these rows is not logged."""
        if self.rows is None or trainer.sanity_checking or getattr(trainer, "fast_dev_run", False):
            return
        answers = self.generator.continued([row.input_ids[: row.prompt_length] for row in self.rows.encoded])
        references = self.rows.references(self.generator.codec)
        scored = [ScoredAnswer(a.text, r, a.ended) for a, r in zip(answers, references, strict=True)]
        for name, value in corpus_scores(self.metrics, scored).items():
            if value is not None:
                pl_module.log_exact(f"val/{name}", value)


Generated = GenerationMetrics  # the old name, which configs of stored runs hold
