"""``-m experiment=learning_curve``: the same validation rows, steps and cache for every part of train, and a page at the end."""

import csv
import json

FAST = ("model=tiny_gpt2", "data=alpaca", "data.path=sample", "data.limit=40", "trainer.max_steps=2", "evaluate.rows=0", "report.write=false",
        "logger=none", "questions=0", "callbacks.samples.number=0", "trainer.val_check_interval=1.0")  # fmt: skip


def csv_step(run, step):
    """``val/loss`` of a step in ``metrics.csv``."""
    [row] = [row for row in csv.DictReader((run / "metrics.csv").open()) if row["step"] == str(step)]
    return row["val/loss"]


def test_parts_of_train_are_compared_on_the_same_rows(llmft, tmp_path, caplog):
    code, _, err = llmft(
        "-m",
        "experiment=learning_curve",
        "data.train_fraction=0.5,1",
        "seed=1",
        *FAST,
        "data.cache=cache",
        "output_dir=all",
    )
    assert code == 0, err
    assert caplog.text.count("cache: rows are there already") == 1
    half, whole = (json.loads((tmp_path / "all" / job / "run.json").read_text()) for job in "01")
    assert half["data"]["train"] == {"fraction": 0.5, "examples": 17, "of": 34}
    assert whole["data"]["train"] == {"fraction": 1, "examples": 34, "of": 34}
    assert half["data"]["validation"] == whole["data"]["validation"]
    assert "losses of the untrained model: 2 of 2 validation rows from job 0 (the same weights" in caplog.text
    assert half["metrics"]["before"] == whole["metrics"]["before"] != {}
    assert {csv_step(tmp_path / "all" / job, 0) for job in "01"} == {str(half["metrics"]["before"]["val/loss"])}
    assert half["data"]["batching"]["batches"] == whole["data"]["batching"]["batches"] == 5  # of 34 examples, 8 each
    table = list(csv.DictReader((tmp_path / "all" / "learning_curve.csv").open()))
    assert [(row["fraction"], row["examples"], row["runs"]) for row in table] == [
        ("0.5", "17", "0"),
        ("1.0", "34", "1"),
    ]
    assert [float(row["mean"]) for row in table] == [run["objective"] for run in (half, whole)]
    page = tmp_path / "all" / "learning_curve.html"
    page.unlink()
    code, out, err = llmft("report", "runs=all")
    assert code == 0, err
    assert "No extrapolation: 2 different numbers of rows" in out
    assert "<svg" in page.read_text()
