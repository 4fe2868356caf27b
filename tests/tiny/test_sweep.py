"""A multirun: every job in its folder, a table beside them, and one failing job does not end it."""

import csv
import json

FAST = (
    "data.limit=20",
    "trainer.max_steps=1",
    "questions=0",
    "evaluate.rows=0",
    "report.write=false",
    "callbacks.samples.number=0",
    "baseline=false",
)


def test_jobs_and_table(llmft, tmp_path):
    code, _, err = llmft(
        "-m", "model=tiny_t5,tiny_gpt2", "data=alpaca", "data.path=sample", "peft=none,lora", "output_dir=all", *FAST
    )
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "all" / "sweep.csv").open()))
    assert [(row["run"], row["model"], row["peft"], row["status"]) for row in rows] == [
        ("0", "tiny_t5", "none", "finished"),
        ("1", "tiny_t5", "lora", "finished"),
        ("2", "tiny_gpt2", "none", "finished"),
        ("3", "tiny_gpt2", "lora", "finished"),
    ]
    for row in rows:
        record = json.loads((tmp_path / "all" / row["run"] / "run.json").read_text())
        assert float(row["objective"]) == record["objective"] == record["metrics"]["after"]["val/loss"]
        assert (tmp_path / "all" / row["run"] / "model" / "README.md").exists()
    ranked = list(csv.DictReader((tmp_path / "all" / "leaderboard.csv").open()))
    assert sorted((row["model"], row["peft"]) for row in ranked) == sorted((row["model"], row["peft"]) for row in rows)
    values = [float(row["val/loss"]) for row in ranked]
    assert values == sorted(values)
    assert (tmp_path / "all" / "leaderboard.html").is_file()
    table = (tmp_path / "all" / "sweep.md").read_text().splitlines()
    assert len(table) == 6
    assert table[0].startswith("| run | model | data | peft | lr | seed | status | objective |")
    assert set((tmp_path / "all").iterdir()) >= {tmp_path / "all" / str(n) for n in range(4)}


def test_a_failing_job_does_not_end_the_sweep(llmft, tmp_path):
    code, _, err = llmft(
        "-m", "model=tiny_gpt2", "data=alpaca", "data.path=sample", "optim.lr=1e-3,-1,1e-4", "output_dir=all", *FAST
    )
    assert code == 2
    assert "optim.lr=-1: must be a number above 0" in err
    rows = list(csv.DictReader((tmp_path / "all" / "sweep.csv").open()))
    assert [(row["run"], row["status"], row["reason"]) for row in rows] == [
        ("0", "finished", ""),
        ("1", "failed", "config: 1 fault\n  - optim.lr=-1: must be a number above 0"),
        ("2", "finished", ""),
    ]


def test_a_crash_in_one_job_does_not_end_the_sweep_either(llmft, tmp_path, monkeypatch):
    from llmft.models import backbone

    real = backbone.load_model

    def crash(place, *arguments):
        if "tiny-t5" in place:
            raise RuntimeError("out of luck")
        return real(place, *arguments)

    monkeypatch.setattr(backbone, "load_model", crash)
    code, _, err = llmft(
        "-m",
        "model=tiny_t5,tiny_gpt2",
        "data=alpaca",
        "data.path=sample",
        "data.split.val=0.1,0.2",
        "output_dir=all",
        *FAST,
    )
    assert code == 1
    assert "out of luck" in err
    rows = list(csv.DictReader((tmp_path / "all" / "sweep.csv").open()))
    assert [(row["status"], row["data.split.val"]) for row in rows] == [
        ("failed", "0.1"),
        ("failed", "0.2"),
        ("finished", "0.1"),
        ("finished", "0.2"),
    ]


def test_a_sweep_over_a_wrong_option_does_not_start(llmft, tmp_path):
    code, _, err = llmft("-m", "model=tiny_gpt2,tiny_gpt3", "output_dir=all")
    assert code == 2
    assert "model=tiny_gpt3: no such option. Did you mean tiny_gpt2?" in err
    assert not (tmp_path / "all").exists()
