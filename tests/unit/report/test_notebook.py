"""A run in a notebook: data frames, figure and summary, from run directories written by hand."""

import io
import json

import numpy as np
import pytest

from llmft.api import Run
from llmft.metrics.verdict.verdict import Verdict, verdict_of
from llmft.report.notebook import frames
from llmft.report.notebook.figure import plot
from llmft.report.notebook.summary import summary
from llmft.utils.errors import UserError
from tests.support.report_runs import EVIL, Tags, make_run


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,epoch,train/loss,train/lr,val/loss,test/chrf\n0,0,,,3.0,\n2,0,2.5,0.1,,\n4,1,inf,0.2,2.0,50\n"
    )
    (tmp_path / "steps.csv").write_text("step,epoch,train/loss\n1,0,2.75\n2,0,2.5\n3,0,2.25\n")
    rows = [
        {"question": "Q", "reference": "R", "answer": "A", "base_answer": "B", "scores": {"chrf": 50.0}, "base_scores": {"chrf": None}},
        {"question": "", "prompt": "<b>P", "reference": "y" * 300, "answer": "C"},
    ]  # fmt: skip
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.json").write_text('{"status": "finished"}')
    return tmp_path


def test_metrics_are_one_row_a_step_and_one_column_a_metric(run):
    frame = frames.metrics(run)
    assert (frame.index.name, frame.index.dtype, list(frame.index)) == ("step", np.dtype("int64"), [0, 1, 2, 3, 4])
    assert list(frame.columns) == ["epoch", "val/loss", "train/loss", "train/lr", "test/chrf"]
    assert frame["train/loss"].dropna().to_dict() == {1: 2.75, 2: 2.5, 3: 2.25}  # inf is no number to compute with
    assert frame["val/loss"].dropna().to_dict() == {0: 3.0, 4: 2.0}
    assert frame["epoch"].to_list() == [0, 0, 0, 0, 1]
    assert frame.dtypes.unique() == [np.dtype("float64")]


def test_a_run_without_metrics_has_an_empty_frame_and_no_plot(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    assert frames.metrics(tmp_path).empty
    assert frames.predictions(tmp_path).empty
    with pytest.raises(UserError, match=r"nothing to plot; metrics.csv has no loss"):
        plot(tmp_path)


def test_predictions_are_one_row_an_example_with_its_scores(run):
    frame = frames.predictions(run)
    assert frame["answer"].to_list() == ["A", "C"]
    assert frame["scores.chrf"].fillna(-1).to_list() == [50, -1]
    assert frame["base_scores.chrf"].isna().to_list() == [True, True]


def test_the_plot_has_loss_with_its_best_step_and_learning_rate(run):
    loss, rate = plot(run).axes
    lines = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in loss.get_lines()}
    assert lines["train/loss"] == [[1, 2.75], [2, 2.5], [3, 2.25]]
    assert lines["val/loss"] == [[0, 3], [4, 2]]
    assert lines["best val/loss: step 4"][0][0] == 4
    assert [np.asarray(line.get_xydata()).tolist() for line in rate.get_lines()] == [[[2, 0.1], [4, 0.2]]]
    assert (loss.get_title(loc="left"), rate.get_title(loc="left")) == ("Loss (nats per token)", "Learning rate")


def test_the_plot_is_shown_without_pyplot_and_is_readable_on_any_background(run):
    import matplotlib.image

    image, shown = plot(run)._repr_png_()
    pixels = matplotlib.image.imread(io.BytesIO(image))
    assert pixels.shape[1] == pytest.approx(2 * shown["width"], abs=2)
    assert pixels[0, 0].tolist() == [1, 1, 1, 1]


def test_the_summary_says_status_verdict_and_first_answers(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    found = Tags(summary(run, Verdict("green", "Better.", ("Detail.",), ("few rows",))))
    texts = [text.strip() for text in found.texts if text.strip()]
    assert {"? on ?", ", ?: finished, in", run.name, "Better.", "Reservations: few rows.", "Detail."} <= set(texts)
    at = texts.index("tuned")
    assert texts[at + 1 :] == ["Q", "R", "B", "A", "<b>P", "y" * 240 + " ...", "C"]
    assert "color:" not in summary(run, Verdict("green", "Better.")).replace("border-left", "")


def test_the_summary_of_an_evaluated_run_has_its_scores(tmp_path):
    run = make_run(tmp_path / "run")
    text = summary(run, verdict_of(json.loads((run / "evaluation.json").read_text()), {}))
    assert "d on m" in text
    assert "Better than its base on 8 validation rows: loss" in text
    found = Tags(text)
    assert found.texts.count("chrf") == 1
    said = [text.strip() for text in found.texts if text.strip()]
    assert said[-4:] == ["Q2", "the answer 2", "base", "the answer 2"]
    assert len(text) < 8000


def test_nothing_in_a_row_or_a_verdict_acts_in_the_notebook(tmp_path):
    run = make_run(tmp_path / "run", words=EVIL, status=EVIL, model=EVIL)
    text = summary(run, Verdict("red", EVIL, (EVIL,), (EVIL,)))
    found = Tags(text)
    assert "script" in text
    assert set(found.tags) == {
        "div",
        "p",
        "strong",
        "code",
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    assert {name for name, _ in found.attributes} == {"style", "dir"}
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "62710561" not in text


def test_a_run_uses_them(run, monkeypatch):
    monkeypatch.setattr("llmft.api.open_run", lambda *_, **__: (run, None))
    opened = Run(run)
    assert opened.metrics.equals(frames.metrics(run))
    assert opened.predictions.equals(frames.predictions(run))
    assert len(opened.plot().axes) == 2
    assert opened._repr_html_() == summary(run, opened.verdict)
    assert "Not evaluated" in opened._repr_html_()
