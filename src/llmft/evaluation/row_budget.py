"""``evaluate.rows=auto``: so many rows that their answers take about a fifth of the training's time, by count of tokens.

Nothing is timed and no hardware is asked, so that a training has the same test rows on every machine.
"""

import logging
from typing import NamedTuple

import numpy as np

from llmft.config.schema import TrainConfig
from llmft.config.schema.generation import Generation
from llmft.config.swept import swept_keys
from llmft.data.datamodule import InstructionDataModule
from llmft.metrics.format import split_name
from llmft.metrics.verdict.reservations import FEW_ROWS
from llmft.models.peft.trainable import is_adapter

log = logging.getLogger(__name__)

# An interval from so many rows is half as wide as from the fewest that a verdict needs.
MOST = 4 * FEW_ROWS
# A generated token takes as long as so many tokens of a prompt: one step for each, in which every sequence of the batch has one
# token. Measured with SmolLM2 on a CPU in batches of 4,096 tokens (docs/performance.md).
DECODED = 4


class Row(NamedTuple):
    """Mean tokens of a row: of its prompt, and of its answer."""

    prompt: float
    answer: float


def auto_rows(cfg: TrainConfig, data: InstructionDataModule, steps: int) -> int:
    """The number of rows that ``evaluate.rows=auto`` stands for, which a line of the log explains.

    Args:
        cfg: The config of a training.
        data: Read, encoded and split.
        steps: Optimizer steps of the training; below 0 if they are not known before.
    """
    split = data.stand_in("test")
    total = len(data.indices[split])
    if few := _why_few(cfg, steps):
        rows, why = _few(few)
    else:
        rows, why = _affordable(int(training_cost(cfg, data, steps) / 5 / row_cost(cfg, mean_row(data, split))))
    chosen = f"all {total}" if rows >= total else f"{rows} of {total}"
    rest = "" if rows >= total else f", {why}; evaluate.rows=null takes all"
    if not cfg.trainer.fast_dev_run:  # which evaluates nothing
        log.info("evaluate: %s %s rows%s", chosen, split_name(split), rest)
    return min(rows, total)


def _why_few(cfg: TrainConfig, steps: int) -> str | None:
    """Why the fewest rows are taken, whatever the training costs; None if they are not."""
    if swept_keys():
        return "as in each job of a sweep"
    if cfg.evaluate.in_training:
        return "because each validation generates answers too"
    if cfg.judge.kind != "none":
        return "because each answer is judged too"
    return "because the length of the training is not known" if steps < 0 else None


def _few(why: str) -> tuple[int, str]:
    return FEW_ROWS, f"no more than a verdict needs, {why}"


def _affordable(rows: int) -> tuple[int, str]:
    if rows < FEW_ROWS:
        return _few("because the training is short")
    if rows > MOST:
        return MOST, "whose answers take less than a fifth of the training's time"
    return rows, "so that the answers take about a fifth of the training's time"


def mean_row(data: InstructionDataModule, split: str) -> Row:
    """Mean tokens of the rows of a split."""
    rows, columns = data.indices[split], data.row_columns
    answer = float(np.mean(columns["answer_tokens"][rows]))
    return Row(float(columns.sizes(rows).sum(axis=1).mean()) - answer, answer)


def training_cost(cfg: TrainConfig, data: InstructionDataModule, steps: int) -> float:
    """Time of one process for all steps, in tokens of a forward pass; frozen weights have no gradient of their own."""
    batches = data.batches("train")
    epochs = steps / -(-len(batches) // cfg.trainer.accumulate_grad_batches)
    tokens = float(batches.lengths.sum(dtype=np.int64)) / batches.ranks * epochs
    return tokens * ((2 if is_adapter(cfg.peft) else 3) + bool(cfg.model.gradient_checkpointing))


def row_cost(cfg: TrainConfig, row: Row) -> float:
    """Time of a row's answers and losses, base and tuned, in tokens of a forward pass; an untuned model uses up its tokens."""
    settings, limit = cfg.evaluate, cfg.generation.max_new_tokens
    cost = _pass(cfg.generation, row, min(row.answer, limit)) * len(settings.seeds or [None])
    if settings.base:
        cost += _pass(cfg.generation, row, limit)
    if settings.base and settings.few_shot:
        cost += _pass(cfg.generation, row, limit) + settings.few_shot * sum(row)
    return cost


def _pass(generation: Generation, row: Row, generated: float) -> float:
    answers = generation.num_beams * generation.samples
    return row.prompt + DECODED * generated * answers + sum(row)
