"""Configs of stored runs."""

import pytest
from omegaconf import OmegaConf

from llmft.config.auto_values import auto_choices
from llmft.runs.open import completed
from tests.conftest import typed_config


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


def test_a_run_from_before_shared_prefixes_is_resumed_without_them(load):
    cfg = load("model=tiny_llama", "output_dir=run")
    OmegaConf.set_struct(cfg, False)
    assert cfg.model.pop("shared_prefix") == "auto"
    assert completed(cfg).model.shared_prefix == "off"


def test_a_run_from_before_the_fast_kernels_keeps_the_computation_of_transformers(load):
    cfg = load("model=smollm2_135m", "output_dir=run")
    OmegaConf.set_struct(cfg, False)
    cfg.pop("performance")
    cfg.evaluate.pop("seeds")
    cfg.pop("report")
    found = completed(cfg)
    assert found.performance == "plain"
    assert found.evaluate.seeds is None
    assert found.report == load().report
    assert {choice.key: choice.value for choice in auto_choices(typed_config(found))} == {
        "model.dtype": "float32", "model.attention": "sdpa", "model.padding": "kept",
        "model.shared_prefix": "off", "model.liger": False, "optim.fused": False, "trainer.precision": "32-true", "peft.compute_dtype": "float32"
    }  # fmt: skip
