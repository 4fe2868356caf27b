"""Two runs of one seed are equal, byte for byte, for any number of loader workers; another seed differs."""

import pytest

from tests.conftest import cli

pytestmark = pytest.mark.guarantees


def run(folder, name, *overrides):
    done = cli(
        "model=tiny_t5", "data=alpaca", "data.path=sample", "peft=lora", "data.limit=40", "trainer.max_steps=7", f"output_dir={name}",
        "trainer.log_every_n_steps=1", "logger=none", "questions=0", "baseline=false", "optim.lr=1e-2", *overrides, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = [line.rsplit(",", 2)[0] for line in (folder / name / "metrics.csv").read_text().splitlines()]
    assert "per_second" not in metrics[0]
    return (
        metrics,
        (folder / name / "model" / "adapter_model.safetensors").read_bytes(),
        (folder / name / "samples.jsonl").read_bytes(),
    )


def test_same_seed_same_bytes(tmp_path):
    first = run(tmp_path, "first")
    assert run(tmp_path, "second") == first
    assert run(tmp_path, "workers", "data.num_workers=2") == first
    measured = run(tmp_path, "measured", "baseline=true")
    assert measured[1] == first[1]
    assert measured[0][2:] == first[0][1:]  # without the row of step 0
    other = run(tmp_path, "other", "seed=43")
    assert other[0] != first[0]
    assert other[1] != first[1]
