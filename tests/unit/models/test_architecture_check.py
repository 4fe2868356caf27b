"""Faults of a config that need the model's config or tokenizer, and not its weights."""

import pytest

from llmft.config.validate import check
from llmft.models.architecture_check import architecture_faults
from llmft.models.backbone import load as backbone
from llmft.utils.errors import UserError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generation.max_new_tokens=4000", "data.max_prompt_tokens=512 + generation.max_new_tokens=4000 = 4512 tokens"),
        ("callbacks.samples.max_new_tokens=4000", "callbacks.samples.max_new_tokens=4000 = 4512 tokens"),
        ("model.lora_targets=[q_proj]", "model.lora_targets: q_proj match no layer of this model"),
        ("model.path=./nowhere/model", "model.path=./nowhere/model: no such folder"),
        ("+generation.temperature=0.5", "generation: "),
        ("+generation.foo=1", "generation.foo: transformers' GenerationConfig has no such setting"),
    ],
)
def test_faults_of_the_architecture_are_found_without_weights(override, message, load, monkeypatch):
    monkeypatch.setattr(backbone, "load_model", None)
    with pytest.raises(UserError) as error:
        check(load("model=tiny_gpt2", override), architecture=architecture_faults)
    assert message in str(error.value)


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_gpt2", "tiny_llama", "gemma_2b_it", "flan_t5_xl", "gpt2_medium"])
def test_a_right_model_has_no_faults_and_one_that_is_not_here_is_not_fetched(model, load):
    check(load(f"model={model}"), architecture=architecture_faults)


@pytest.mark.parametrize(
    ("model", "config", "said"),
    [
        (
            "gpt2",
            "BloomConfig",
            "data.batching=packed: BloomForCausalLM has no positions that could restart in each example",
        ),
        ("flan_t5_small", "BartConfig", "data.batching=packed: BartForConditionalGeneration has no positions"),
        ("gpt2", "GPT2Config", ""),
        ("flan_t5_small", "T5Config", ""),
    ],
)
def test_a_model_that_cannot_pack_is_found_without_weights(model, config, said, load, tmp_path):
    import transformers

    getattr(transformers, config)().save_pretrained(tmp_path)
    cfg = load(f"model={model}", f"model.path={tmp_path}", "data.batching=packed", "peft=none", "prompt=plain")
    if said:
        with pytest.raises(UserError, match=said):
            check(cfg, architecture=architecture_faults)
    else:
        check(cfg, architecture=architecture_faults)
