"""Configs of stored runs."""

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
