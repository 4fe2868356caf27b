"""Random states: those of a GPU belong to a training on it, and a training on the CPU does not wake it."""

import torch

from llmft.utils import rng


def test_a_training_on_the_cpu_leaves_a_gpu_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.ones(1))
    assert "cuda" not in rng.rng_states()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert rng.rng_states()["cuda"] == 1


def test_states_are_restored():
    before = rng.rng_states()
    drawn = torch.rand(3)
    rng.set_rng_states(before)
    assert torch.equal(torch.rand(3), drawn)
