"""Learning curves: which runs are one, and the sentence on twice the rows."""

import csv

import pytest

from llmft.report.leaderboard import write_leaderboard
from llmft.report.learning_curve import write_learning_curves
from llmft.report.learning_curve.curve import learning_curves
from tests.unit.report.leaderboard.boards import run

# 1 + 20 n^-0.5, as in tests/unit/metrics/test_power_law.py
LOSSES = {0.125: (100, 3.0), 0.25: (200, 2.414214), 0.5: (400, 2.0), 1: (800, 1.707107)}
TYPED = frozenset({"data.train_fraction", "seed", "model"})


def runs(losses, *, seeds=(1, 2), model="tiny_t5", spread=0.01, **values):
    return [
        run(
            f"{model}-{fraction}-{seed}", seed=seed, objective=loss + spread * (-1) ** seed, typed=TYPED,
            settings={"data.train_fraction": fraction, "seed": seed, "model.name": model},
            data={"train": {"examples": examples, "of": 800}}, **values,
        )
        for fraction, (examples, loss) in losses.items() for seed in seeds
    ]  # fmt: skip


def test_runs_that_differ_in_the_fraction_and_the_seed_are_one_curve():
    curves = learning_curves([*runs(LOSSES), *runs(LOSSES, model="tiny_gpt2"), *runs(LOSSES, status="failed")])
    assert [curve.label for curve in curves] == ["model=tiny_t5", "model=tiny_gpt2"]
    assert [len(curve.points) for curve in curves] == [8, 8]
    first = curves[0].rows()[0]
    assert (first["examples"], first["seeds"], first["mean"]) == (100, 2, pytest.approx(3.0))
    assert first["deviation"] == pytest.approx(0.014142, rel=1e-3)  # of 2.99 and 3.01


def test_the_sentence_states_the_change_and_its_interval():
    (curve,) = learning_curves(runs(LOSSES, spread=0))
    assert curve.sentence.startswith("More rows: twice the rows (1,600) would lower val/loss by 0.2")
    assert curve.sentence.endswith("from 1.707")
    flat = {0.125: (100, 2.0), 0.25: (200, 1.5001), 0.5: (400, 1.5), 1: (800, 1.5)}
    (curve,) = learning_curves(runs(flat, spread=0))
    assert curve.sentence.startswith("Other rows, other model: ")
    assert curve.sentence.endswith("from 1.500, less than 1 % of the loss")


def test_two_fractions_are_drawn_and_not_extrapolated():
    (curve,) = learning_curves(runs({0.5: (400, 2.0), 1: (800, 1.7)}))
    assert curve.extrapolation is None
    assert curve.sentence.startswith("No extrapolation: 2 different numbers of rows")


def test_one_fraction_and_other_objectives_are_no_curve():
    assert learning_curves(runs({1: (800, 1.7)})) == []
    assert learning_curves(runs(LOSSES, monitor="val/chrf")) == []


def test_the_files(tmp_path):
    board = [*runs(LOSSES, has_report=True), *runs(LOSSES, model="<b>&$x_1$", spread=0.2)]
    lines = write_learning_curves(tmp_path, board)
    assert lines[0].startswith("model=tiny_t5: More rows: ")
    assert lines[-1] == f"learning curve: {tmp_path / 'learning_curve.html'}"
    page = (tmp_path / "learning_curve.html").read_text()
    assert '<a href="tiny_t5-0.125-1/report.html">' in page
    assert "<b>" not in page
    assert len(page.split("<svg")) == 3
    table = list(csv.DictReader((tmp_path / "learning_curve.csv").open()))
    assert [row["examples"] for row in table[:4]] == ["100", "200", "400", "800"]
    assert (tmp_path / "learning_curve_2.png").exists()


def test_a_link_to_a_run_holds_its_whole_name(tmp_path):
    write_learning_curves(tmp_path, runs(LOSSES, model="a#b?c", has_report=True))
    assert '<a href="a%23b%3Fc-0.125-1/report.html">' in (tmp_path / "learning_curve.html").read_text()


@pytest.mark.parametrize("losses", [LOSSES, {1: (800, 1.7)}])
def test_the_leaderboard_links_to_the_page_if_there_is_one(losses, tmp_path, monkeypatch):
    monkeypatch.setattr("llmft.report.leaderboard.write.read_runs", lambda _: runs(losses))
    board = write_leaderboard(tmp_path)
    assert ('<a href="learning_curve.html">' in (tmp_path / "leaderboard.html").read_text()) == (len(losses) > 1)
    assert (
        bool(write_learning_curves(tmp_path, board.runs))
        == (tmp_path / "learning_curve.html").is_file()
        == (len(losses) > 1)
    )
