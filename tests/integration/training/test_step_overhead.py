"""A step without what nobody reads: the same bits."""

from typing import Any

import pytest
import torch
from torch.utils import deterministic

from llmft.training import trainer

pytestmark = pytest.mark.slow


class Ignored:
    """A place to set a flag that nobody reads."""


@pytest.mark.parametrize("filled", [False, True])
def test_new_tensors_are_not_filled(filled: bool, runs: dict[bool, Any]):
    assert runs[filled]["filled"] is filled  # each run was what it is called


def test_filling_new_tensors_changes_no_bit(runs: dict[bool, Any]):
    one, other = (runs[filled]["state_dict"] for filled in (False, True))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Any]:
    """The last checkpoint of the same training, with new tensors left as they are, and filled with NaN."""
    from llmft.__main__ import run

    found = {}
    for filled in (False, True):
        folder = tmp_path_factory.mktemp("run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deterministic, "fill_uninitialized_memory", filled)
            if filled:  # what Fit would set to False
                patch.setattr(trainer, "deterministic", Ignored())
            line = ["model=tiny_t5", "peft=none", "data=keyword_qa", "data.limit=12", "trainer.max_steps=4"]
            line += ["trainer.accelerator=cpu", "evaluate.rows=0", "questions=0", "report.write=false", "logger=none"]
            assert run([*line, "callbacks.progress=null", "model.dropout=0.1", f"output_dir={folder}/run"]) == 0
            now = getattr(deterministic, "fill_uninitialized_memory")  # noqa: B009 (pyright does not know it)
        state = torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
        found[filled] = {"filled": now, "state_dict": state["state_dict"]}
    return found
