"""When the validation was best, and what the steps after that did."""

import pytest

from llmft.report.best_step import best_step
from llmft.report.curves import Series


@pytest.mark.parametrize(
    ("values", "metric", "said"),
    [
        ([3.0, 2.0, 2.08], "val/loss", "validation loss was best at step 120 of 400 (2); the last 280 steps made it worse by 0.08"),
        ([3.0, 2.5, 2.0], "val/loss", "validation loss was best at the end (2 at step 400): more steps may help"),
        ([1.0, 2.5, 2.0], "val/loss", "validation loss was best before training (1); 400 steps made it worse by 1: lower optim.lr"),
        ([3.0, 2.0, 2.0], "val/loss", "validation loss was 2 at step 120, and 280 steps more did not improve it"),
        ([1.0, 30.0, 20.0], "val/bleu", "val/bleu was best at step 120 of 400 (30); the last 280 steps made it worse by 10"),
        ([1.0, 20.0, 30.0], "val/bleu", "val/bleu was best at the end (30 at step 400): more steps may help"),
    ],
)  # fmt: skip
def test_when_it_was_best(values, metric, said):
    found = best_step({metric: Series([0, 120, 400], values, [0, 0, 0])}, metric)
    assert found is not None
    assert found.sentence == said
    assert found.as_dict()["sentence"] == said
    assert found.turned == (values[-1] != (max if metric == "val/bleu" else min)(values))


def test_a_training_loss_and_a_single_value_have_no_best_step():
    assert best_step({"train/loss": Series([1, 2], [2.0, 1.0], [0, 0])}, "train/loss") is None
    assert best_step({"val/loss": Series([0], [2.0], [0])}, "val/loss") is None
    assert best_step({}, "val/loss") is None
