"""``llmft.train`` in a notebook: signals act as everywhere while it runs, and the notebook's own handlers are there afterwards."""

import json
import os
import signal

import pytest

import llmft
from llmft.models.module import InstructionModule
from llmft.utils.signals import STOPPING

SMALL = ("model=tiny_t5", "data.path=sample", "data.limit=20", "trainer.max_steps=2", "questions=0", "evaluate.rows=0")


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_a_notebook_finds_its_handlers_again(number, tmp_path, monkeypatch):
    step, before = InstructionModule.training_step, {n: signal.getsignal(n) for n in STOPPING}

    def interrupted(*given):
        if number:
            os.kill(os.getpid(), number)
        return step(*given)

    monkeypatch.setattr(InstructionModule, "training_step", interrupted)
    ours = {n: lambda *_: pytest.fail("not while training") for n in STOPPING}
    try:
        for n, handler in ours.items():
            signal.signal(n, handler)
        if number:
            with pytest.raises(KeyboardInterrupt):
                llmft.train([*SMALL, "report.write=false", f"output_dir={tmp_path / 'run'}"])
        else:
            llmft.train([*SMALL, "report.write=false", f"output_dir={tmp_path / 'run'}"])
        assert {n: signal.getsignal(n) for n in STOPPING} == ours
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    status = json.loads((tmp_path / "run" / "run.json").read_text())["status"]
    assert status == ("interrupted" if number else "finished")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
