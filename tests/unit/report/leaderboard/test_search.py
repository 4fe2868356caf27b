"""Figures of an Optuna search."""

import pytest

from llmft.config.write_paths import STUDY
from llmft.report.leaderboard import search
from llmft.runs.study import NAME, storage_of

optuna = pytest.importorskip("optuna")


def study(folder, trials):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    created = optuna.create_study(storage=storage_of(folder / STUDY), study_name=NAME, direction="minimize")
    for n in range(trials):
        distributions = {"optim.lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
                         "peft.r": optuna.distributions.IntDistribution(1, 9)}  # fmt: skip
        params = {"optim.lr": 10 ** -(1 + n % 5), "peft.r": 1 + n * 4 % 9}
        created.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=float(n % 5))
        )  # follows lr alone


def test_importance_and_trials(tmp_path):
    study(tmp_path, 20)
    found = search.read_search(tmp_path)
    assert found is not None
    assert found.importance["optim.lr"] > found.importance["peft.r"]
    importance, trials = search.figures(tmp_path, "val/loss")
    assert importance.alt.startswith("lr ")
    assert trials.alt.startswith("20 trials; best val/loss 0 with lr=0.1")
    assert "<svg" in trials.svg()


def test_few_trials_or_a_broken_file_give_no_figures(tmp_path, caplog):
    assert search.figures(tmp_path, "val/loss") == []
    study(tmp_path, 3)
    assert search.figures(tmp_path, "val/loss") == []
    (tmp_path / STUDY).write_text("{")
    assert search.figures(tmp_path, "val/loss") == []
    assert "cannot be read" in caplog.text
