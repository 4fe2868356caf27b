"""How a training that fails is told."""

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
