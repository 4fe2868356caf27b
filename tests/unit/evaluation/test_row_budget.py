"""How many rows ``evaluate.rows=auto`` stands for, by hand: a training of 100 x 50 tokens for each of its epochs."""

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmft.config.swept import VARIABLE
from llmft.data.batching.sampler import BatchingConfig, PlannedBatchSampler
from llmft.evaluation.row_budget import Row, auto_rows, row_cost, training_cost

PLAN = BatchingConfig("rows", 10, 0, None, (1, 1), shuffle=False, seed=0)


class Columns(dict[str, Any]):
    def sizes(self, rows: Any) -> Any:
        return np.full((len(rows), 1), 50)


def data(test: int = 500, ranks: int = 1) -> Any:
    """Rows of 40 tokens of prompt and 10 of answer: 100 of train, 10 batches, and those of test."""
    return SimpleNamespace(
        indices={"test": np.arange(test)},
        stand_in=lambda split: split,
        row_columns=Columns(answer_tokens=np.full(test, 10)),
        batches=lambda _: PlannedBatchSampler(np.full((100, 1), 50), PLAN, ranks=ranks),
    )


@pytest.fixture
def cfg(load_config):
    """Full fine-tuning with answers of up to 20 tokens; a row costs (40 + 4 x 10 + 50) + (40 + 4 x 20 + 50) = 300."""
    return lambda *more: load_config("model=tiny_gpt2", "peft=none", "generation.max_new_tokens=20", *more)


def test_a_token_of_a_training_is_three_passes_or_two_if_weights_are_frozen(cfg):
    assert training_cost(cfg(), data(), steps=20) == 3 * 2 * 5000  # two epochs of ten steps
    assert training_cost(cfg("peft=lora"), data(), steps=20) == 2 * 2 * 5000
    assert training_cost(cfg("trainer.accumulate_grad_batches=4"), data(), steps=3) == 3 * 5000
    assert training_cost(cfg(), data(ranks=2), steps=5) == 3 * 2500
    assert training_cost(cfg("model.gradient_checkpointing=true"), data(), steps=10) == 4 * 5000


def test_a_row_costs_its_prompt_and_its_tokens_one_by_one_and_its_loss_for_each_model(cfg):
    row = Row(40, 10)
    assert row_cost(cfg(), row) == (40 + 4 * 10 + 50) + (40 + 4 * 20 + 50)
    assert row_cost(cfg("evaluate.base=false"), row) == 40 + 4 * 10 + 50
    assert row_cost(cfg("generation.num_beams=2"), row) == (40 + 8 * 10 + 50) + (40 + 8 * 20 + 50)
    assert row_cost(cfg("evaluate.few_shot=2"), row) == 300 + 170 + 2 * 50
    sampled = cfg("generation=sample", "evaluate.seeds=[1,2]", "evaluate.base=false")
    assert row_cost(sampled, row) == 2 * (40 + 4 * 10 + 50)


@pytest.mark.parametrize(
    ("steps", "test", "rows", "said"),
    [
        (20, 500, 30, "30 of 500 test rows, no more than a verdict needs, because the training is short"),
        (50, 500, 50, "50 of 500 test rows, so that the answers take about a fifth of the training's time"),
        (999, 500, 120, "120 of 500 test rows, whose answers take less than a fifth of the training's time"),
        (-1, 500, 30, "30 of 500 test rows, no more than a verdict needs, because the length of the training is not known"),
        (50, 50, 50, "all 50 test rows"),
        (20, 7, 7, "all 7 test rows"),
    ],
)  # fmt: skip
def test_the_answers_take_a_fifth_of_the_training_within_bounds(steps, test, rows, said, cfg, caplog):
    with caplog.at_level(logging.INFO):
        assert auto_rows(cfg(), data(test), steps) == rows
    [line] = [record.getMessage() for record in caplog.records if record.getMessage().startswith("evaluate:")]
    assert line == f"evaluate: {said}{'' if rows == test else '; evaluate.rows=null takes all'}"


def test_a_sweep_a_judge_and_validations_that_generate_take_the_fewest(cfg, monkeypatch):
    assert auto_rows(cfg(), data(), 999) == 120
    assert auto_rows(cfg("evaluate.in_training=true"), data(), 999) == 30
    assert auto_rows(cfg("judge=ollama"), data(), 999) == 30
    monkeypatch.setenv(VARIABLE, '["optim.lr"]')
    assert auto_rows(cfg(), data(), 999) == 30
