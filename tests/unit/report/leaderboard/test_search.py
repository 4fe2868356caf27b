"""Figures of an Optuna search."""

import pytest

from llmft.config.write_paths import STUDY
from llmft.report.leaderboard import search
from tests.unit.report.leaderboard.boards import add_study

pytest.importorskip("optuna")


def test_importance_and_trials(tmp_path):
    add_study(tmp_path, 20)
    found = search.read_search(tmp_path)
    assert found is not None
    assert found.importance["optim.lr"] > found.importance["peft.r"]
    importance, trials = search.figures(tmp_path, "val/loss")
    assert importance.alt.startswith("lr ")
    assert trials.alt.startswith("20 trials; best val/loss 0 with lr=0.1")
    assert "<svg" in trials.svg()


def test_few_trials_or_a_broken_file_give_no_figures(tmp_path, caplog):
    assert search.figures(tmp_path, "val/loss") == []
    add_study(tmp_path, 3)
    assert search.figures(tmp_path, "val/loss") == []
    (tmp_path / STUDY).write_text("{")
    assert search.figures(tmp_path, "val/loss") == []
    assert "cannot be read" in caplog.text
