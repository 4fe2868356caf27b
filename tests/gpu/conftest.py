"""Tests on a CUDA device, and a rehearsal of them on a CPU: ``LLMFT_GPU_REHEARSAL=1 pytest -m gpu tests/gpu``.

A rehearsal runs what a test does with the CPU in the place of the GPU, so that the test itself has been run once; tests of what
a CPU does not have are skipped. Measured values go into JUnit's properties (``--junitxml``), from which docs/gpu.md is written.
"""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
REHEARSAL = "LLMFT_GPU_REHEARSAL" in os.environ
SMALL = ("data=alpaca", "data.path=sample", "data.limit=40", "data.batch_size=4", "trainer.log_every_n_steps=1", "trainer.max_epochs=1",
         "optim.lr=1e-3", "scheduler=constant", "questions=0", "evaluate.rows=0", "report.write=false", "callbacks.samples.number=0",
         "baseline=false", "logger=none")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip without a device; in a rehearsal, what needs a real one (``cuda_only``)."""
    for item in items:  # of the whole session
        if not item.path.is_relative_to(HERE):
            continue
        if not torch.cuda.is_available() and (not REHEARSAL or item.get_closest_marker("cuda_only")):
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture
def device() -> torch.device:
    """The CUDA device; in a rehearsal the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def trained(llmft: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Callable[..., list[dict[str, str]]]:
    """Train with ``SMALL`` and overrides, in this process: ``rows = trained("one", "gpu", "model=tiny_t5")`` of metrics.csv."""

    def run(name: str, accelerator: str, *overrides: str) -> list[dict[str, str]]:
        accelerator = accelerator if torch.cuda.is_available() else "cpu"
        code, _, err = llmft(*SMALL, f"trainer.accelerator={accelerator}", f"output_dir={name}", *overrides)
        assert code == 0, err
        return steps(tmp_path / name)

    return run


def steps(run: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv`` with a training loss."""
    with (run / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["train/loss"]]


def values(rows: list[dict[str, str]], name: str = "train/loss") -> list[float]:
    """A column of ``metrics.csv``."""
    return [float(row[name]) for row in rows]


def farthest(found: list[float], expected: list[float]) -> float:
    """The largest relative difference of two lists of the same length."""
    return max(abs(one / other - 1) for one, other in zip(found, expected, strict=True))
