"""Training curves: published references, and when training should have stopped."""

from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from llmft.report import curves
from llmft.report.curves import Series
from llmft.report.figures import to_log_scale
from llmft.report.html import write_report
from llmft.training import summary
from llmft.utils.errors import UserError
from tests.support.report_runs import SETTINGS, make_run


def test_a_published_curve_stands_beside_ours(tmp_path):
    run = make_run(tmp_path / "run")
    (tmp_path / "published.csv").write_text("step,train/loss,val/loss\n0,2.6,2.7\n4,0.9,1.1\n")
    text = write_report(run, SETTINGS.replaced({"reference_curve": str(tmp_path / "published.csv")})).read_text()
    assert "published val/loss" in text
    (tmp_path / "published.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table with step and numbers"):
        curves.reference_curve(str(tmp_path / "published.csv"))
    with pytest.raises(UserError, match="no such file"):
        curves.reference_curve(str(tmp_path / "none.csv"))


def test_perplexity_is_exp_of_the_loss_beside_it():
    found = {"train/loss": Series([1, 2], [0.0, 1.0], [0, 0]), "train/perplexity": Series([1, 2], [5.0, 5.0], [0, 0])}
    assert curves.with_perplexity(found)["train/perplexity"].values == [1.0, pytest.approx(2.718281828)]
    assert set(curves.with_perplexity({"train/loss": found["train/loss"]})) == {"train/loss"}  # a distillation


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1.1, 1.3, [1.1, 1.15, 1.2, 1.25, 1.3]),
        (75, 700, [100, 200, 500]),
        (40, 3000, [50, 100, 200, 500, 1000, 2000]),
        (3, 9e4, [10, 100, 1000, 10000, 100000]),
    ],
)
def test_labels_of_a_logarithmic_axis_are_there_and_apart(low, high, labels):
    axes = Figure().subplots()
    axes.plot([low, high])
    to_log_scale(axes, high / low)
    bottom, top = axes.get_ylim()
    assert [tick for tick in axes.get_yticks() if bottom <= tick <= top] == pytest.approx(labels)


def test_a_smoothed_curve_does_not_lag():
    """Ten points: the mean of a point and its neighbors; a straight line stays where it is."""
    line = curves.smoothed(Series(list(range(10)), [1.0, 4.0, 1.0] + [3.0] * 7, [0] * 10))
    assert line is not None
    assert line.values[:5] == pytest.approx([2.5, 2.0, 8 / 3, 7 / 3, 3.0])
    straight = curves.smoothed(Series(list(range(80)), [float(n) for n in range(80)], [0] * 80))
    assert straight is not None
    assert straight.values[10:70] == pytest.approx(list(range(10, 70)))
    assert curves.smoothed(Series([1, 2], [1.0, 2.0], [0, 0])) is None


def test_a_long_curve_keeps_its_peaks_and_ends():
    values = [1.0] * 10_000
    values[5001], values[77] = 9.0, -3.0
    line = curves.thinned(Series(list(range(10_000)), values, [0] * 10_000))
    assert len(line.values) <= 1002
    assert (line.steps[0], line.steps[-1], max(line.values), min(line.values)) == (0, 9999, 9.0, -3.0)
    assert curves.thinned(short := Series([1], [2.0], [0])) == short


def test_the_advice_goes_by_what_chose_the_checkpoint(load_config, tmp_path, capsys):
    """The losses were best at step 2, and the agreement, of which more is better, at the end."""
    run, table = make_run(tmp_path / "run"), ["step,val/loss,val/agreement", "0,3.0,0.1", "2,1.0,0.2", "4,1.5,0.3"]
    (run / "metrics.csv").write_text("\n".join(table))
    by_loss, by_agreement = (
        "alidation loss was best at step 2 of 4 (1)",
        "al/agreement was best at the end (0.3 at step 4)",
    )
    directory: Any = SimpleNamespace(path=run, model=run / "model")
    for overrides, said in {
        (): by_loss,
        ("callbacks.checkpoints.monitor=val/agreement", "callbacks.checkpoints.mode=max"): by_agreement,
        (
            "objective=val/agreement",
            "callbacks.checkpoints=null",
        ): "al/agreement was best before training",  # as a loss
    }.items():
        cfg = load_config("model=tiny_gpt2", "data=alpaca", *overrides)
        (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(cfg.node())))
        text = write_report(run, SETTINGS).read_text()
        metrics = {"before": {}, "after": {}, "steps": 4, "best_step": 2}
        summary.show(directory, metrics, (), (), (), None, cfg.monitored())
        for shown in (text, capsys.readouterr().out):
            assert said in shown
            assert sum(one in shown for one in (by_loss, by_agreement)) == (said in (by_loss, by_agreement))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bytes(range(256)), "not a table with step and numbers"),  # no UTF-8
        (b"step,val/loss\n1,\x000\n", "not a table with step and numbers"),
        (b"steps,val/loss\n1,2.0\n", "no column 'step'"),
        (b"step,val/loss\n1,two\n", "could not convert string to float: 'two'"),
        (
            b"step,val/loss\n1," + b"1" * 200_000 + b"\n",
            "not a table with step and numbers|holds no values",
        ),  # csv may have no limit
        (b"", "holds no values"),
        (b"step,loss\n1,2.0\n", "holds no values"),
    ],
)
def test_a_file_that_is_no_curve(content, words, tmp_path):
    (tmp_path / "curve.csv").write_bytes(content)
    with pytest.raises(UserError) as raised:
        curves.reference_curve(str(tmp_path / "curve.csv"))
    assert any(text in str(raised.value) for text in words.split("|"))
    assert str(tmp_path / "curve.csv") in str(raised.value)


def test_a_curve_of_a_spreadsheet_begins_with_a_mark(tmp_path):
    (tmp_path / "curve.csv").write_bytes(b"\xef\xbb\xbfepoch,val/loss\n1,2.5\n")
    assert curves.reference_curve(str(tmp_path / "curve.csv"), 10)["val/loss"] == ([10], [2.5], [1.0])
