"""``estimate`` as a user runs it, and the end of a training that runs out of memory."""

import json
import re
import subprocess
import sys

import pytest
import torch

ROWS = ("model=tiny_gpt2", "data=alpaca", "data.path=sample", "data.limit=20", "peft=none")
FAST = ("questions=0", "evaluate.rows=0", "report.write=false", "callbacks.samples.number=0", "baseline=false")


def test_the_table_and_the_numbers_are_those_of_the_training(llmft, tmp_path):
    code, out, err = llmft(
        "estimate", *ROWS, "trainer.max_epochs=2", "trainer.accumulate_grad_batches=2", "format=json"
    )
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["peak"] == sum(found["memory"].values())
    assert not (tmp_path / "outputs").exists()
    code, _, err = llmft(*ROWS, *FAST, "trainer.max_epochs=2", "trainer.accumulate_grad_batches=2", "output_dir=run")
    assert code == 0, err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {name: found[name] for name in ("total", "trainable")} == record["parameters"]
    assert found["steps"] == record["metrics"]["steps"]
    assert found["batches"] == record["data"]["batching"]["batches"]
    assert found["rows"] == record["data"]["split"]["train"]
    trained = float((tmp_path / "run" / "metrics.csv").read_text().splitlines()[-1].split(",")[5])
    assert 2 * found["supervised"] == trained


@pytest.mark.parametrize(
    "model", ["tiny_llama", pytest.param("tiny_t5", marks=pytest.mark.slow), pytest.param("tiny_gpt2", marks=pytest.mark.slow)]
)  # fmt: skip
def test_packed_sequences_are_estimated(llmft, model):
    """Positions and block masks of a packed batch, which is on the CPU, beside a model on the meta device."""
    row = ("data=alpaca", "data.path=sample", "data.limit=8", "data.batching=packed", "peft=none")
    code, out, err = llmft("estimate", f"model={model}", *row, "format=json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["memory"]["activations"] > 0


@pytest.mark.slow
def test_a_probe_measures(llmft):
    code, out, err = llmft("estimate", *ROWS, "estimate.probe=true", "estimate.probe_steps=1")
    assert code == 0, err
    assert re.search(r"predicted peak\s+│\s+[\d,.]+", out)
    assert re.search(r"tokens per second\s+│\s+[\d,]+", out)
    assert re.search(r"steps, without validation\s+│\s+\d", out)


def test_running_out_of_memory_ends_with_the_table_and_the_cheapest_change(llmft, tmp_path, monkeypatch):
    from llmft.models.module import InstructionModule

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(InstructionModule, "training_step", full)
    code, _, err = llmft(*ROWS, *FAST, "output_dir=run")
    assert code == 2
    assert "llmft: out of memory in step 1: CUDA out of memory. Tried to allocate 20.00 GiB" in err
    assert re.search(r"activations, largest batch\s+│\s+[\d,.]+", err)
    assert re.search(r"cheapest change: \S+=\S+.* \([\d,]+ MiB; same results", err)
    assert "Traceback" not in err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    assert "out of memory" in record["reason"]


LIMITED = """
import resource, sys, torch, lightning.pytorch, transformers, peft
from llmft import __main__
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 900 * 2**20, resource.RLIM_INFINITY))
sys.exit(__main__.run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_limit_of_the_system_is_met_in_the_same_way(tmp_path):
    line = (
        "model=tiny_gpt2",
        "data=alpaca",
        "data.path=sample",
        "data.limit=80",
        "data.batch_size=64",
        "peft=none",
        *FAST,
    )
    done = subprocess.run([sys.executable, "-c", LIMITED, *line, "output_dir=run"], cwd=tmp_path, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "out of memory" in done.stderr
    assert "cheapest change:" in done.stderr
