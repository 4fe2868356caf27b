"""Configs of stored runs."""

import pytest
from omegaconf import OmegaConf

from llmft.runs.open import completed


def test_a_run_of_an_older_version_gets_the_keys_that_have_come_since(load):
    cfg = load("model=tiny_t5", "data=alpaca", "peft=lora", "output_dir=run")  # else named by the second
    older = cfg.copy()
    OmegaConf.set_struct(older, False)
    for key in ("data.streaming", "data.train_on_turns", "model.new_tokens", "peft.distill_from"):
        group, name = key.split(".")
        older[group].pop(name)
    assert completed(older) == cfg


@pytest.mark.parametrize("data", ["keyword_qa", "psychology", "mix"])
def test_a_run_from_before_a_data_set_described_itself_gets_the_values_of_its_own_set(load, data):
    cfg = load("model=tiny_t5", f"data={data}", "output_dir=run")
    older = cfg.copy()
    OmegaConf.set_struct(older, False)
    for node in (older.data, *(older.data.get("sets") or {}).values()):
        for key in ("metrics", "notice", "fields", "questions"):
            node.pop(key)
    older.data.name = cfg.data.name = "mine"  # a set is recognized by its class
    assert completed(older) == cfg
