"""Values that a config takes from the environment are in no file and no output: interpolations stay interpolations."""

import json
from pathlib import Path

import pytest

from tests.conftest import cli
from tests.integration.conftest import SHORT

TOKEN = "priv4te-T0ken-a1b2c3d4"
SECRET = "sk-9f8e7d6c5b4a-secret"
ROWS = [{"instruction": f"What is {n} plus {n}?", "input": "", "output": f"{n + n}."} for n in range(30)]


@pytest.fixture
def private(tmp_path_factory, monkeypatch) -> Path:
    """A folder with rows whose path is known to the environment only."""
    folder = tmp_path_factory.mktemp("private") / TOKEN
    folder.mkdir()
    lines = [json.dumps({"instruction": "", "output": 3}), *map(json.dumps, ROWS)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv("LLMFT_TEST_PRIVATE", str(folder))
    monkeypatch.setenv("LLMFT_TEST_SECRET", SECRET)
    return folder


def leaks(folder: Path, *said: str) -> list[str]:
    """Files (by name or content) and outputs with the token or the secret."""
    texts = (TOKEN.encode(), SECRET.encode())
    files = [file for file in folder.rglob("*") if not file.is_symlink()]
    found = [str(file) for file in files if any(text.decode() in file.name for text in texts)]
    found += [str(file) for file in files if file.is_file() and any(text in file.read_bytes() for text in texts)]
    return found + [text for text in said if any(secret.decode() in text for secret in texts)]


QUICK = [o for o in SHORT if not o.startswith(("data.path", "logger", "report", "evaluate"))]
DATA = [
    "model=tiny_gpt2",
    "data=alpaca",
    "data.path=${oc.env:LLMFT_TEST_PRIVATE}/rows.jsonl",
    "data.invalid=drop",
    "evaluate.rows=2",
]


@pytest.mark.slow
@pytest.mark.usefixtures("private")
def test_a_run_and_what_is_made_of_it(llmft, tmp_path):
    said = []
    for line in (
        [*DATA, *QUICK, "output_dir=run"],
        ["evaluate", "run=run", "evaluate.rows=2"],
        ["evaluate", "run=run", "evaluate.rows=2", "format=json"],
        ["report", "run=run"],
        ["report", "runs=."],
        ["answer", "run=run", "question=x"],
        ["preview", *DATA[:4]],
        ["resume=run", "trainer.max_steps=6"],
    ):
        code, out, err = llmft(*line)
        assert code == 0, (line, err)
        said += [out, err]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "data.path=${oc.env:LLMFT_TEST_PRIVATE}/rows.jsonl" in record["overrides"]
    assert "${oc.env:LLMFT_TEST_PRIVATE}/rows.jsonl:1" in (tmp_path / "run" / "rejected.jsonl").read_text()
    assert leaks(tmp_path, *said) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "search",
    [
        ["seed=1,2"],
        ["hydra/launcher=joblib", "seed=1,2"],
        ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optim.lr=interval(1e-4,1e-3)"],
        ["data.path=${oc.env:LLMFT_TEST_PRIVATE}/rows.jsonl,${oc.env:LLMFT_TEST_PRIVATE}/none.jsonl"],
    ],
)
@pytest.mark.usefixtures("private")
def test_a_sweep(search, tmp_path):
    done = cli("-m", *DATA, *QUICK, "evaluate.rows=0", "report.write=false", "output_dir=sweep", *search, cwd=tmp_path)
    assert (tmp_path / "sweep" / "0" / "run.json").is_file(), done.stderr
    record = json.loads((tmp_path / "sweep" / "0" / "run.json").read_text())
    assert record["status"] == "finished"
    assert "data.path=${oc.env:LLMFT_TEST_PRIVATE}/rows.jsonl" in [
        text.replace("'", "") for text in record["overrides"]
    ]
    assert leaks(tmp_path, done.stdout, done.stderr) == []


REFUSED = [
    ["data.path=${oc.env:LLMFT_TEST_PRIVATE}/none.jsonl"],
    ["model.path=${oc.env:LLMFT_TEST_PRIVATE}/none"],
    ["data.path=[${oc.env:LLMFT_TEST_PRIVATE}/none.jsonl]"],
    ["data.path=${oc.env:LLMFT_TEST_PRIVATE}/rows.jsonl", "data.invalid=error"],
    ["data.system=${oc.env:LLMFT_TEST_SECRET}"],
    ["model.license=${oc.env:LLMFT_TEST_SECRET}", "allow_targets=[oc.env]", "optim.lr=-1"],
    ["data.too_long=${oc.env:LLMFT_TEST_SECRET}", "allow_targets=[oc.env]"],
    ["hydra.job.name=${oc.env:LLMFT_TEST_SECRET}"],
    [f"+logger.own={{_target_: lightning.pytorch.loggers.CometLogger, api_key: {SECRET}}}"],
]


@pytest.mark.parametrize(
    "line", [REFUSED[0], REFUSED[8], *(pytest.param(r, marks=pytest.mark.slow) for r in REFUSED[1:8])]
)
@pytest.mark.usefixtures("private")
def test_a_refusal(line, llmft, tmp_path):
    code, out, err = llmft("model=tiny_gpt2", "data=alpaca", "data.path=sample", "debug=fast", "output_dir=run", *line)
    assert code == 2
    assert leaks(tmp_path, out, err) == []
