"""A judge at the end of a training: its scores beside the others, its key nowhere, its failure no failure of the run."""

import json

import pytest

from tests.conftest import read_json_lines
from tests.unit.evaluation.judge.test_http_client import KEY, server  # noqa: F401  (a fixture)

FAST = ("model=tiny_gpt2", "data=alpaca", "data.path=sample", "data.limit=40", "trainer.max_steps=1", "questions=0", "callbacks.samples.number=0", "baseline=false",
        "generation.max_new_tokens=3", "evaluate.rows=3", "report.write=false", "output_dir=run", "judge.backoff=0.01")  # fmt: skip


@pytest.fixture
def judge_server(server):  # noqa: F811
    return server


def test_scores_stand_beside_the_others_and_the_key_nowhere(judge_server, llmft, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    code, out, err = llmft(
        *FAST, "judge=openai", f"judge.url={judge_server.url}", "judge.key_env=MY_KEY", "judge.models=[m]"
    )
    assert code == 0, err
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["scores"]["judge"]["tuned"] == found["scores"]["judge"]["base"] == 50
    assert (found["judge"]["n_valid"], found["judge"]["n"]) == (3, 3)
    assert [row["scores"]["judge"] for row in read_json_lines(tmp_path / "run" / "predictions.jsonl")] == [50, 50, 50]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["metrics"]["test"]["judge"] == 50
    assert judge_server.log[0][2]["Authorization"] == f"Bearer {KEY}"
    assert "judge m: 6 of 6 replies valid" in out
    for file in (tmp_path / "run").rglob("*"):
        assert file.is_dir() or KEY.encode() not in file.read_bytes(), file
    assert KEY not in out + err
    asked = len(judge_server.log)
    code, out, err = llmft(
        "evaluate",
        "run=run",
        "evaluate.rows=3",
        "judge=openai",
        f"judge.url={judge_server.url}",
        "judge.key_env=MY_KEY",
        "judge.models=[m]",
    )
    assert code == 0, err
    assert len(judge_server.log) == asked
    assert "6 reused from an earlier run" in out


@pytest.mark.slow
def test_a_judge_that_fails_at_the_end_leaves_the_run_finished(judge_server, llmft, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(judge_server, "do_POST", lambda self: self.send(403, "go away"))
    judge = ("judge=openai", f"judge.url={judge_server.url}")
    code, _, err = llmft(*FAST, *judge)
    assert code == 0, err
    assert "HTTP 403: go away" in err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert "all 6 requests failed: " in found["judge"]["error"]
    assert "HTTP 403" in found["judge"]["error"]
    assert "judge" not in found["scores"]
    code, _, err = llmft("evaluate", "run=run", "evaluate.rows=3", *judge)
    assert (code, "HTTP 403: go away" in err) == (2, True)


def test_a_judge_that_is_not_there_is_said_before_the_training(llmft, tmp_path):
    code, _, err = llmft(*FAST, "judge=ollama", "judge.url=http://127.0.0.1:9")
    assert (code, "no server answers at http://127.0.0.1:9" in err) == (2, True)
    assert not (tmp_path / "run" / "metrics.csv").exists()
    code, _, err = llmft(*FAST[:-2], "judge=ollama", "evaluate.rows=0")
    assert (code, "needs answers to judge, but evaluate.rows is 0" in err) == (2, True)


def test_a_local_judge_works_offline(llmft, tmp_path):
    rows = [{"reference": "yes", "answer": f"no {n}", "question": "Q"} for n in range(2)]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    code, out, err = llmft("evaluate", "input=p.json", "judge=model", "model@judge.model=tiny_llama", "format=json")
    assert code == 0, err
    found = json.loads(out)
    assert found["judge"]["asked"] == 2  # random weights say nothing that is a score
    assert found["scores"]["judge"]["reason"] == "the judge gave no valid score"
    kept = read_json_lines(tmp_path / "judge.jsonl")
    assert [len(row["replies"]) for row in kept] == [2, 2]
    assert {row["model"] for row in kept} == {"tiny_llama"}
