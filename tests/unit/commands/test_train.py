"""How a training that fails or is stopped ends."""

from typing import Any

import pytest
import torch

from llmft.commands import train
from llmft.runs.directory import RunDirectory
from tests.conftest import composed, typed_config


def test_a_traceback_ends_with_the_command_that_resumes(tmp_path, monkeypatch):
    def fail(*_: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(train, "train", fail)
    run, cfg = RunDirectory(tmp_path / "a run"), typed_config(composed("data.path=sample"))
    run.checkpoints.mkdir(parents=True)
    torch.save({"global_step": 4, "state_dict": {}}, run.checkpoints / "last.ckpt")
    with pytest.raises(RuntimeError) as error:
        train.train_and_record(cfg, run)
    resume = f"python -m llmft 'resume={tmp_path}/a run'"
    assert error.value.__notes__ == [f"the checkpoint of step 4 is kept; to resume: {resume}"]


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("trained", [True, False])
def test_a_run_that_is_stopped_says_what_goes_on(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "train", stop)
    run, cfg = RunDirectory(tmp_path / "a run"), typed_config(composed("data.path=sample"))
    run.model.mkdir(parents=True)  # also an older one, of a run that trains for longer
    run.record = {"metrics": {"before": {}, **({"after": {}} if trained else {})}}
    with pytest.raises(KeyboardInterrupt) as error:
        train.train_and_record(cfg, run)
    to_evaluate = (
        f"the training is complete and its model is saved; to evaluate it: python -m llmft evaluate 'run={run.path}'"
    )
    rest = to_evaluate if trained else f"to resume: python -m llmft 'resume={run.path}'"
    assert str(error.value) == f"interrupted; {rest}"
    assert run.record["status"] == "interrupted"
