"""Files that transformers 4 reads as 5 does; that it computes the same is `make compat` (test_open_in_transformers4.py)."""

import json
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaTokenizer,
    MT5Config,
    Phi3Config,
    T5Config,
)

from llmft.models.backbone import transformers4
from llmft.models.backbone.tiny import byte_tokenizer

T5: dict[str, Any] = {"vocab_size": 40, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
UNSCALED = {**T5, "tie_word_embeddings": False}
SIZE: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
IDS = torch.tensor([[5, 9, 3, 30]])


def saved(model, folder):
    transformers4.save_model(model, folder)
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("config", "head_of_its_own", "flag", "written"),
    [
        (T5Config(**T5), False, True, False),  # T5 1.0: tied, and scaled
        (T5Config(**UNSCALED), True, False, True),  # T5 1.1, FLAN-T5
        # tied but not scaled: transformers 4 knows that as an untied head with the same values
        (T5Config(**UNSCALED), False, False, True),
        (MT5Config(**T5), False, False, True),
    ],
)
def test_the_flag_of_a_t5_tells_whether_the_head_is_tied(config, head_of_its_own, flag, written, tmp_path):
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    if head_of_its_own:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    assert model.config.tie_word_embeddings is True  # what transformers 5 says, and would save, in each case
    assert saved(model, tmp_path)["tie_word_embeddings"] is flag
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) is written  # noqa: SIM118
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert (again.lm_head.weight is again.shared.weight) is not head_of_its_own
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS}
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_a_folder_that_says_tied_is_put_right_when_it_is_written_again(tmp_path):
    """``model/`` of earlier runs, by the plain ``save_pretrained`` of transformers 5; an export opens and writes it."""
    model = AutoModelForSeq2SeqLM.from_config(T5Config(**UNSCALED))
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(tmp_path / "old")
    assert json.loads((tmp_path / "old" / "config.json").read_text())["tie_word_embeddings"] is True
    opened = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "old")
    assert saved(opened, tmp_path / "new")["tie_word_embeddings"] is False
    assert torch.equal(opened.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (LlamaConfig(**SIZE, rope_parameters={"rope_theta": 5e5, "rope_type": "default"}), {"rope_theta": 5e5}),
        (
            LlamaConfig(**SIZE, rope_parameters={"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0}),
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        ),
        (
            Gemma3TextConfig(
                **SIZE,
                head_dim=4,
                num_key_value_heads=1,
                layer_types=["sliding_attention", "full_attention"],
                rope_parameters={
                    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
                    "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                },
            ),
            {
                "rope_local_base_freq": 1e4,
                "rope_theta": 1e6,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                "tie_word_embeddings": True,
            },
        ),
        (
            Phi3Config(
                **SIZE,
                original_max_position_embeddings=64,
                rope_parameters={
                    "rope_theta": 1e4,
                    "rope_type": "longrope",
                    "short_factor": [1.0, 1.1],
                    "long_factor": [1.0, 2.0],
                },
            ),
            {
                "rope_theta": 1e4,
                "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1], "long_factor": [1.0, 2.0]},
            },
        ),
        (
            GPTNeoXConfig(
                **SIZE, rope_parameters={"rope_theta": 7e3, "rope_type": "default", "partial_rotary_factor": 0.5}
            ),
            {"rotary_emb_base": 7e3, "rotary_pct": 0.5},
        ),
    ],
    ids=["llama", "linear", "gemma3", "longrope", "gpt_neox"],
)
def test_rotary_positions_are_written_under_the_older_names_too(config, keys, tmp_path):
    model = AutoModelForCausalLM.from_config(config).eval()
    written = saved(model, tmp_path)
    assert {key: written.get(key) for key in keys} == keys
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert again.config.rope_parameters.items() >= model.config.rope_parameters.items()


def test_a_tokenizer_has_a_class_and_special_tokens_that_both_know(tmp_path):
    tokenizer = byte_tokenizer({"pad_token": "<pad>", "eos_token": "</s>"}, more=("<start>",), ends_with_eos=True)
    tokenizer.save_pretrained(tmp_path)
    transformers4.rewrite_tokenizer_config(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["additional_special_tokens"] == ["<start>"]
    assert "extra_special_tokens" not in config
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.extra_special_tokens == ["<start>"]
    assert again("a<start>b")["input_ids"] == tokenizer("a<start>b")["input_ids"]


@pytest.mark.parametrize("bos", [True, False])
def test_whether_a_llama_tokenizer_adds_a_bos_is_stated(bos, tmp_path):
    """transformers 4 adds one unless the config says no, whatever the post-processor in tokenizer.json does."""
    from tokenizers import processors

    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "▁", "a"])}
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=[])
    if bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    tokenizer.save_pretrained(tmp_path)
    transformers4.rewrite_tokenizer_config(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["add_bos_token"], config["add_eos_token"]) == (bos, False)
    assert AutoTokenizer.from_pretrained(tmp_path)("a")["input_ids"] == [1, 3, 4][not bos :]
