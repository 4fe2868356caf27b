"""Names of a sweep's jobs by what differs."""

import os

import pytest
from omegaconf import OmegaConf

from llmft.config import swept


def test_the_keys_of_a_sweep_are_those_with_several_values(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    task = ["data=alpaca", "optim.lr=1e-3,1e-4", "peft.r=choice(4,8)", "peft.targets=[q,v]", "seed=range(1,4)"]
    config = OmegaConf.create(
        {
            "hydra": {
                "overrides": {"task": task},
                "sweeper": {"params": {"model": "tiny_t5,tiny_gpt2", "data.limit": 3, "data.columns": {"a": 1}}},
            }
        }
    )
    swept.announce(config)
    assert swept.swept_keys() == ["model", "optim.lr", "peft.r", "seed"]
    swept.forget()
    assert swept.swept_keys() == []


@pytest.mark.parametrize(
    ("overrides", "keys", "expected"),
    [
        (["optim.lr=0.001", "peft.r=8", "data=alpaca"], ["optim.lr", "peft.r"], "lr=1e-3, r=8"),
        (["data.seed=1", "generation.seed=2"], ["data.seed", "generation.seed"], "data.seed=1, generation.seed=2"),
        (["+data.path='/home/a b/rows.jsonl'"], ["data.path"], "path=rows.jsonl"),
        (["optim.lr=0.000345678"], ["optim.lr"], "lr=3.46e-4"),
        (["data.path=../.."], ["data.path"], "path="),  # no part of a path leaves the folder
        (["model=tiny_t5"], [], ""),
    ],
)
def test_a_job_is_named_by_what_differs(overrides, keys, expected):
    assert swept.label(overrides, keys) == expected
