"""A run directory of an earlier version (tests/fixtures/d3bab6a) opens, answers, is evaluated and is resumed as by that version."""

import csv
import json
import math
import platform
import re
import shutil
from pathlib import Path

import pytest
import torch

from llmft import load_run
from tests.conftest import ROOT, read_json_lines

FIXTURE = ROOT / "tests" / "fixtures" / "d3bab6a"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A copy of the run beside its data file, in the current folder."""
    shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def made_here() -> bool:
    """Whether this processor and this PyTorch made the expected numbers; others round their sums in another order."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else platform.processor()
    name = re.search(r"model name\s*: (.*)", text)
    # one name stands for processors with and without AVX-512, on which PyTorch takes other kernels
    here = (name[1] if name else text, torch.backends.cpu.get_cpu_capability(), torch.__version__)
    return here == (EXPECTED["processor"], EXPECTED["instructions"], EXPECTED["torch"])


def numbers(file):
    """The rows of a metrics.csv, without those that measure time."""
    rows = list(csv.DictReader(file.open()))
    return [{name: float(text) for name, text in row.items() if text and "per_second" not in name} for row in rows]


def test_a_stored_run_gives_the_same_answer(stored):
    run = load_run(stored)
    assert run.record["status"] == "finished"
    assert run.answer(EXPECTED["question"]) == EXPECTED["answer"]


def test_a_stored_run_is_evaluated_to_the_same_scores(stored, llmft):
    before = {row.pop("id"): row for row in read_json_lines(stored / "predictions.jsonl")}
    scores = json.loads((stored / "evaluation.json").read_text())["scores"]
    code, _, err = llmft("evaluate", "run=run", "evaluate.rows=3")
    assert code == 0, err
    after = {row.pop("id"): row for row in read_json_lines(stored / "predictions.jsonl")}
    assert after.keys() == before.keys()
    assert [row["answer"] for row in after.values()] == [row["answer"] for row in before.values()]
    found = json.loads((stored / "evaluation.json").read_text())["scores"]
    assert found.keys() == scores.keys()
    for name, score in scores.items():
        assert found[name]["tuned"] == pytest.approx(score["tuned"], rel=1e-5), name
    assert llmft("report", "run=run")[0] == 0
    assert "</html>" in (stored / "report.html").read_text()


@pytest.mark.parametrize("moved", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["same_path", "moved_data"])
def test_a_stored_run_is_resumed_in_the_middle_of_an_epoch_as_if_it_had_never_stopped(moved, stored, llmft, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "questions.jsonl"
    if moved:
        elsewhere.parent.mkdir()
        (tmp_path / "rows.jsonl").rename(elsewhere)
    code, _, err = llmft("resume=run", "trainer.max_steps=9", *([f"data.path={elsewhere}"] if moved else []))
    assert code == 0, err
    found, expected = numbers(stored / "metrics.csv"), numbers(FIXTURE / "metrics.csv")
    assert [row["step"] for row in found] == list(range(10))
    # the short run was evaluated at its end, after step 3
    found[3] = {name: value for name, value in found[3].items() if not name.startswith("test/")}
    for row in expected[4:]:  # that version logged the perplexity of the epoch so far
        row["train/perplexity"] = math.exp(row["train/loss"])
    # and called the scores of validation rows test
    expected[-1] = {name.replace("test/", "val_scores/"): value for name, value in expected[-1].items()}
    assert found == (expected if made_here() else [pytest.approx(row, rel=1e-4) for row in expected])


@pytest.mark.usefixtures("stored")
def test_data_at_another_path_must_be_the_same_data(llmft, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text((tmp_path / "rows.jsonl").read_text().replace("a", "e"))
    code, _, err = llmft("resume=run", "trainer.max_steps=9", f"data.path={other}")
    assert code == 2
    assert f"data.path={other}: has changed since the run began (SHA-256 " in err
    assert str(other) not in (tmp_path / "run/config.yaml").read_text()  # the run still resumes with its own file
    code, _, err = llmft("resume=run", "trainer.max_steps=9", "data=alpaca")
    assert (code, "data=alpaca: the run has data=academic; a resumed run keeps its config" in err) == (2, True)
