"""The progress bar counts optimizer steps of the whole training."""

from types import SimpleNamespace
from typing import Any

import torch

from llmft.callbacks.progress import Progress


def trainer(step, fn="fit", **metrics) -> Any:
    """What the bar reads of a Trainer."""
    return SimpleNamespace(
        global_step=step, estimated_stepping_batches=20, current_epoch=1, state=SimpleNamespace(fn=fn),
        num_val_batches=[3, 2], callback_metrics={f"{name}/loss": torch.tensor(value) for name, value in metrics.items()},
    )  # fmt: skip


def test_one_bar_counts_the_optimizer_steps_of_all_epochs():
    bar = Progress()
    bar.on_train_start(trainer(4), None)
    for step in (4, 5, 5, 6):  # two batches for each optimizer step
        bar.on_train_batch_end(trainer(step, train=2.5), None, None, None, 0)
    assert bar.line
    assert (bar.line.done, bar.line.total, bar.line.first) == (6, 20, 4)
    bar.on_validation_start(trainer(6), None)
    assert bar.line.text().startswith("validating: 6/20 steps")
    bar.on_validation_end(trainer(6, train=2.5, val=2.75), None)
    assert bar.line.text().endswith("epoch 2 loss 2.500 val 2.750")
    bar.on_train_end(trainer(6), None)
    assert bar.line is None


def test_a_validation_of_its_own_counts_batches():
    bar = Progress()
    bar.on_validation_start(trainer(0, "validate"), None)
    bar.on_validation_batch_end(trainer(0, "validate"))
    assert bar.line
    assert bar.line.text().startswith("validating: 1/5 batches")
    bar.on_validation_end(trainer(0, "validate"), None)
    assert bar.line is None


def test_a_refresh_rate_of_0_turns_it_off():
    bar = Progress(refresh_rate=0)
    bar.on_train_start(trainer(0), None)
    bar.on_train_batch_end(trainer(1), None, None, None, 0)
    assert bar.line is None
