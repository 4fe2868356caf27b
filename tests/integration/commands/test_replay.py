"""``replay`` runs the rows of a halt again: the same loss, the same bad module, from the run directory alone."""

import json
import shutil

import pytest
import torch

from llmft.models.module import InstructionModule
from tests.conftest import forked

RUN = (
    *(
        "data=alpaca",
        "data.path=sample",
        "data.limit=40",
        "data.batch_size=2",
        "trainer.accumulate_grad_batches=2",
        "output_dir=run",
    ),
    *(
        "logger=none",
        "questions=0",
        "evaluate.rows=0",
        "report.write=false",
        "callbacks.samples.number=0",
        "callbacks.progress.refresh_rate=0",
        "baseline=false",
    ),
)
BROKEN = ("model=tiny_gpt2", "peft=none", "optim.lr=10", "scheduler=constant")


@pytest.mark.parametrize(
    ("model", "peft", "name"),
    [
        ("tiny_t5", "lora", "v.lora_A.default"),
        pytest.param("tiny_gpt2", "none", "h.1.ln_2", marks=pytest.mark.slow),
    ],
)
def test_the_same_again(model, peft, name, llmft, tmp_path, monkeypatch):
    """Dropout (0.1 in both models) falls as it fell, so that the loss of a step is the same to the last digit."""
    real = InstructionModule.training_step

    def plant(self, batch, batch_idx):
        if self.trainer.global_step == 2 and len(self.places) == 2:  # in the second micro-batch
            with torch.no_grad():
                next(m for n, m in self.model.named_modules() if n.endswith(name)).weight[0] = float("inf")
        return real(self, batch, batch_idx)

    monkeypatch.setattr(InstructionModule, "training_step", plant)
    code, _, err = llmft(*RUN, f"model={model}", f"peft={peft}")
    assert code == 3, err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    report = json.loads((tmp_path / "run" / "halt" / "report.json").read_text())
    code, out, err = llmft("replay", "run=run", "format=json")
    assert code == 0, err
    found = json.loads(out)
    assert found["first_bad_module"]["module"].endswith(name)
    assert found["first_bad_module"] == report["first_bad_module"]
    assert [row["place"] for row in found["rows"]] == report["rows"]
    code, out, err = llmft("replay", "run=run")
    assert code == 0, err
    assert name in out
    assert f"first bad module:   {report['first_bad_module']['module']}" in out


def test_an_exploded_step_has_the_same_loss_and_gradient_again(llmft, tmp_path):
    code, _, err = llmft(*RUN, *BROKEN, "model.dropout=0.3")
    assert code == 3, err
    report = json.loads((tmp_path / "run" / "halt" / "report.json").read_text())
    shutil.move(tmp_path / "run", tmp_path / "moved")
    code, out, err = llmft("replay", "run=moved", "format=json")
    assert code == 0, err
    found = json.loads(out)
    assert found["loss"] == found["loss_at_halt"] == report["loss"]
    squares = sum(norm**2 for norm in found["gradient_norms"].values())
    assert squares**0.5 == pytest.approx(report["grad_norm"], rel=1e-4)
    norms = list(found["gradient_norms"].values())
    assert norms == sorted(norms, reverse=True)
    assert found["first_bad_module"] is None
    row = found["rows"][0]
    assert row["text"].startswith("Below is an instruction")
    assert row["text"].endswith(row["trained"])
    assert row["trained"].endswith("<|endoftext|>")
    assert sum(row["tokens"] for row in found["rows"]) == found["tokens"] == report["history"][-1]["tokens"]
    code, out, _ = llmft("replay", "run=moved", "replay.modules=3")
    assert code == 0
    assert f"⟦{row['trained']}⟧" in out
    assert "all outputs are finite; the largest" in out
    assert "gradient norms, largest first" in out
    assert out.count("│ transformer.") <= 6


class Payload:
    """What a pickle may do when it is loaded."""

    def __reduce__(self):
        return (open, ("stolen", "w"))


def test_what_replay_needs(llmft, tmp_path):
    code, _, err = llmft("replay")
    assert (code, "replay: pass run=RUN" in err) == (2, True)
    code, _, err = llmft("replay", "run=nowhere")
    assert (code, "run=nowhere: no run directory" in err) == (2, True)
    code, _, err = llmft(*RUN, "model=tiny_gpt2", "trainer.max_steps=1")
    assert code == 0, err
    code, _, err = llmft("replay", "run=run")
    assert (code, "run=run: has no halt/; its status is 'finished'" in err) == (2, True)
    shutil.rmtree(tmp_path / "run")
    assert llmft(*RUN, *BROKEN)[0] == 3
    halt = tmp_path / "run" / "halt"
    torch.save({"batches": [], "states": [], "evil": Payload()}, halt / "window.pt")
    code, _, err = llmft("replay", "run=run")
    assert code == 2
    assert "window.pt: cannot be used: it holds more than tensors and plain values" in err
    assert not (tmp_path / "stolen").exists()
    for name in ("window.pt", "weights.safetensors", "report.json"):
        (halt / name).write_text("x")
        code, _, err = llmft("replay", "run=run")
        assert (code, "halt" in err, "cannot be used" in err, "weights_only" in err) == (2, True, True, False), err


@pytest.mark.slow
def test_from_a_terminal(tmp_path):
    assert forked(*RUN, *BROKEN, cwd=tmp_path).returncode == 3
    done = forked("replay", "run=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
