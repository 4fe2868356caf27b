"""docs/inference-servers.md: exported files hold what the loaders of vLLM, SGLang and TGI read (the servers are not run)."""

import json
from typing import Any

import pytest
from safetensors import safe_open

from llmft import load_run
from llmft.export.forms import adapter
from llmft.export.forms.source import Source
from tests.conftest import ROOT
from tests.integration.conftest import trained

LAYERS = {f"model.layers.{i}.self_attn.{name}" for i in range(2) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load_run(trained(tmp_path_factory, "model=tiny_llama", "data=alpaca", "peft=lora", "peft.r=4"))


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def tensors(file):
    with safe_open(file, "pt") as found:
        names = list(found.keys())
        return {name: (found.get_slice(name).get_shape(), found.get_slice(name).get_dtype()) for name in names}


def test_merged_weights_hold_what_servers_read(run, tmp_path):
    run.export(tmp_path / "out", form="merged", dtype="bfloat16")
    config = read(tmp_path / "out" / "config.json")
    asked = ("architectures", "model_type", "vocab_size", "dtype", "tie_word_embeddings", "rope_theta")
    assert [config[name] for name in asked] == [["LlamaForCausalLM"], "llama", 259, "bfloat16", False, 10000.0]
    weights = tensors(tmp_path / "out" / "model.safetensors")
    assert {dtype for _, dtype in weights.values()} == {"BF16"}
    assert weights["model.embed_tokens.weight"][0] == weights["lm_head.weight"][0] == [259, 64]
    assert {name.removesuffix(".weight") for name in weights if "self_attn" in name} == LAYERS
    assert read(tmp_path / "out" / "generation_config.json")["eos_token_id"] in (2, [2])
    assert read(tmp_path / "out" / "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == run_template(run)


def test_an_adapter_holds_what_servers_read(run, tmp_path):
    hub = {"model.path": "meta-llama/Llama-3.2-1B", "model.revision": "abc123"}
    settings: Any = None  # an adapter has none
    adapter.write(Source(run.path / "model", None, "float32", run.config.replaced(hub), settings), tmp_path)
    config = read(tmp_path / "adapter_config.json")
    plain = {
        "peft_type": "LORA",
        "r": 4,
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "modules_to_save": None,
    }
    assert {name: config[name] for name in plain} == plain
    assert (config["base_model_name_or_path"], config["revision"]) == ("meta-llama/Llama-3.2-1B", "abc123")
    assert isinstance(config["target_modules"], list)
    assert config["lora_alpha"] == run.config.peft.alpha
    weights = tensors(tmp_path / "adapter_model.safetensors")
    layers = {layer for layer in LAYERS if layer.rpartition(".")[2] in config["target_modules"]}
    assert weights.keys() == {f"base_model.model.{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    for name, (shape, dtype) in weights.items():
        assert dtype == "F32"
        assert shape[0 if "lora_A" in name else 1] == 4
    assert (tmp_path / "chat_template.jinja").read_text() == run_template(run)


def run_template(run):
    return (run.path / "model" / "chat_template.jinja").read_text()


def test_the_page_says_that_the_servers_were_not_run():
    assert "**not run**" in (ROOT / "docs" / "inference-servers.md").read_text()
