"""Two runs of one seed are equal, byte for byte, for any number of loader workers; another seed differs."""

import csv

import pytest
import torch

from tests.conftest import forked
from tests.support.digests import digests


def run(llmft, folder, name, *overrides, process=False):
    arguments = (
        "model=tiny_t5", "data=alpaca", "data.path=sample", "peft=lora", "data.limit=40", "trainer.max_steps=7", f"output_dir={name}",
        "trainer.log_every_n_steps=1", "logger=none", "questions=0", "baseline=false", "optim.lr=1e-2", "evaluate.rows=2",
        "report.write=false", "callbacks.samples.max_new_tokens=12", "generation.max_new_tokens=12", *overrides,
    )  # fmt: skip
    if process:  # one of its own
        done = forked(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    else:
        code, _, err = llmft(*arguments)
        assert code == 0, err
    with (folder / name / "metrics.csv").open() as rows:
        metrics = [{k: v for k, v in row.items() if "per_second" not in k} for row in csv.DictReader(rows)]
    assert metrics[-1]["test/loss"]
    files = ("model/adapter_model.safetensors", "samples.jsonl", "predictions.jsonl")
    return metrics, digests(*(folder / name / file for file in files))


def test_same_seed_same_bytes(tmp_path, llmft):
    first = run(llmft, tmp_path, "first", process=True)
    torch.rand(1)  # whatever this process has drawn before
    assert run(llmft, tmp_path, "second", "data.num_workers=2") == first


@pytest.mark.slow
def test_another_seed_differs_and_measuring_before_does_not(tmp_path, llmft):
    first = run(llmft, tmp_path, "first")
    measured = run(llmft, tmp_path, "measured", "baseline=true")
    weights = "adapter_model.safetensors"
    assert measured[1][weights] == first[1][weights]
    assert measured[0][1:] == first[0]  # without the row of step 0
    other = run(llmft, tmp_path, "other", "seed=43")
    assert other[0] != first[0]
    assert other[1][weights] != first[1][weights]
