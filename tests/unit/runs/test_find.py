"""``run=latest``, and folders that hold one run or several."""

import json
from pathlib import Path

import pytest

from llmft.runs.find import find_run, with_run
from llmft.utils.errors import UserError


def made(path: str, started: str, status: str = "finished", *parts: str, **record: object) -> None:
    folder = Path(path)
    for part in (*parts, "model") if status == "finished" else parts:
        (folder / part).mkdir(parents=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("{}")
    times = {"started": f"2026-11-{started}:00+00:00", "status": status}
    (folder / "run.json").write_text(json.dumps(times | record))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_latest_is_the_run_that_started_last():
    made("outputs/b/2026", "20T10:00")
    made("outputs/multirun/2026/0", "21T10:00")
    made("outputs/a/2026", "19T10:00", resumed=["2026-11-20T11:00:00+00:00"])
    assert find_run("latest", part="model") == ("outputs/multirun/2026/0", "the newest run in outputs/")
    Path("outputs/multirun/2026/0/run.json").unlink()
    assert find_run("latest").path == "outputs/a/2026"


def test_latest_says_which_newer_run_has_no_model():
    made("outputs/a/1", "20T10:00")
    made("outputs/a/2", "21T10:00", "failed")
    why = "the newest run in outputs/; 1 newer without model/, the newest outputs/a/2 (failed)"
    assert find_run("latest", part="model") == ("outputs/a/1", why)
    assert find_run("latest").path == "outputs/a/2"


def test_no_run_to_take():
    message = f"run=latest: there is no run in outputs/ (looked in {Path.cwd()}); train one, or pass run=DIR"
    with pytest.raises(UserError) as caught:
        find_run("latest")
    assert str(caught.value) == message
    made("outputs/a/1", "20T10:00", "failed")
    with pytest.raises(UserError, match=r"run=latest: none of the 1 runs in outputs/ has model/ "):
        find_run("latest", part="model")
    with pytest.raises(UserError, match=r"run=nowhere: no run directory \(.*run=latest takes the newest in outputs/\)"):
        find_run("nowhere")


def test_a_folder_with_one_run_is_enough():
    made("all/a/1", "20T10:00")
    assert find_run("all/a/1") == ("all/a/1", "")
    assert find_run("all/a/1/model") == ("all/a/1", "the run of all/a/1/model")
    assert find_run("all") == ("all/a/1", "the only run in all")
    made("all/b/1", "21T10:00", "failed")
    assert find_run("all", part="model") == ("all/a/1", "the only run in all with model/")


def test_several_runs_are_listed_newest_first():
    made("all/a 1", "20T10:00", objective=1.23456)
    made("all/b", "21T10:00", "interrupted")
    with pytest.raises(UserError) as caught:
        find_run("all", "resume")
    assert str(caught.value).splitlines() == [
        "resume=all: holds 2 runs; pass one of them, the newest first:",
        "  resume=all/b  (interrupted 2026-11-21 10:00)",
        "  'resume=all/a 1'  (finished 2026-11-20 10:00, objective 1.235)",
    ]


def test_only_run_and_resume_name_runs():
    made("outputs/a/1", "20T10:00", "failed", "halt")
    assert with_run("run=latest", "replay") == ("run=outputs/a/1", "run=outputs/a/1 (the newest run in outputs/)")
    assert with_run("resume=outputs", "train")[0] == "resume=outputs/a/1"
    for argument in ("runs=latest", "run=null", "run='latest'", "question=run=latest", "--run"):
        assert with_run(argument, "answer") == (argument, "")


def test_a_folder_of_a_model_says_which_option_takes_it():
    Path("my model").mkdir()
    Path("my model/config.json").write_text("{}")
    with pytest.raises(UserError, match=r"run=my model: holds a model \(config.json\) and no run") as error:
        find_run("my model")
    assert str(error.value).endswith("take it without run=: model=auto 'model.path=my model'")
