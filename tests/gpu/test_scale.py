"""What needs GPUs (`pytest -m gpu`): several of them compute what one does, and memory is what was predicted."""

import csv
import json

import pytest
import torch

from tests.conftest import cli

pytestmark = pytest.mark.gpu
RUN = ("model=tiny_llama", "peft=none", "data=alpaca", "data.path=sample", "data.limit=40", "model.dropout=0", "evaluate.rows=0",
       "questions=0", "report.write=false", "callbacks.samples.number=0", "trainer.accelerator=gpu", "trainer.precision=32-true",
       "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "optim.lr=1e-2")  # fmt: skip


def losses(folder):
    return [float(row["train/loss"]) for row in csv.DictReader((folder / "metrics.csv").open()) if row["train/loss"]]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_gpus_compute_what_one_does(strategy, tmp_path):
    one = cli(*RUN, "data.batch_size=8", "output_dir=one", cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    two = cli(*RUN, "data.batch_size=4", f"trainer={strategy}", "output_dir=two", cwd=tmp_path)
    assert two.returncode == 0, two.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)


@pytest.mark.cuda_only
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_predicted_peak_is_near_the_measured_one(precision, tmp_path, record_property):
    line = (*RUN, f"trainer.precision={precision}", "data.batch_size=32")
    found = cli("estimate", *line, "format=json", cwd=tmp_path)
    done = cli(*line, "output_dir=run", cwd=tmp_path)
    assert (found.returncode, done.returncode) == (0, 0), found.stderr + done.stderr
    measured = json.loads((tmp_path / "run" / "run.json").read_text())["peak_memory_mib"]["gpu"]
    memory = json.loads(found.stdout.splitlines()[-1])["memory"]
    tensors = (
        sum(memory[part] for part in ("weights", "gradients", "optimizer", "activations")) / 2**20
    )  # torch's count
    record_property("MiB", f"{measured:.0f} measured, {tensors:.0f} predicted")
    assert tensors == pytest.approx(measured, rel=0.2)
