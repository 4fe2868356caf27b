"""The commands that a report proposes."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from llmft.report.best_step import BestStep
from llmft.report.next_steps import next_steps

CONFIG = OmegaConf.create({"optim": {"lr": 1e-3}, "trainer": {"max_steps": -1, "max_epochs": 3}, "data": {}})
RECORD = {
    "status": "finished",
    "overrides": [
        "data.path=my file.jsonl",
        "optim.lr=1e-3",
        "output_dir=x",
        "hydra.verbose=true",
        "+callbacks.pruning.study=/x.db",
        "callbacks.pruning.trial=3",
    ],
}
TRAIN = "python -m llmft train 'data.path=my file.jsonl'"
TEST, VAL = ({"split": split, "rows": 8, "of": 8} for split in ("test", "val"))


@pytest.mark.parametrize(
    ("best", "evaluation", "command"),
    [
        (BestStep("val/loss", 120, 2.0, 400, 2.1), TEST, f"{TRAIN} optim.lr=1e-3 trainer.max_steps=120"),
        (BestStep("val/loss", 0, 2.0, 400, 2.1), TEST, f"{TRAIN} optim.lr=0.0001"),
        (
            BestStep("val/loss", 400, 2.0, 400, 2.0),
            VAL,
            f"{TRAIN} optim.lr=1e-3 trainer.max_epochs=6 data.split.test=0.1",
        ),
        (None, TEST, None),
    ],
)
def test_training_again_follows_the_curve(best, evaluation, command):
    found = [step.command for step in next_steps(Path("/runs/a b"), RECORD, CONFIG, evaluation, best)]
    assert found[0] == "python -m llmft answer 'run=/runs/a b' question=\"...\" compare=true"
    assert [line for line in found if " train " in line] == ([command] if command else [])


def test_an_unfinished_run_is_resumed_or_replayed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    halted, interrupted = (next_steps(tmp_path, {"status": s}, CONFIG, None, None) for s in ("halted", "interrupted"))
    assert [step.command.split("=")[0] for step in halted] == ["python -m llmft replay run", "python -m llmft resume"]
    assert [step.command for step in interrupted] == [f"python -m llmft resume={tmp_path}"]


def test_rows_that_were_not_evaluated_are_named():
    found = next_steps(Path("/r"), RECORD, CONFIG, {**TEST, "of": 9}, None)
    assert [step.command for step in found][2] == "python -m llmft evaluate run=/r"
