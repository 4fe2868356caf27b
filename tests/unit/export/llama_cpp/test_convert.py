"""What is given to llama.cpp's converter, what is refused before, and the reason that its output has."""

import json
import os
from contextlib import nullcontext

import pytest

from llmft.export.llama_cpp import convert, driver
from llmft.utils.errors import UserError
from tests.support import converter_stub

SCRIPT = """
import json, os, sys
from pathlib import Path
arguments = sys.argv[1:]
folder = Path(arguments[0])
Path(arguments[arguments.index("--outfile") + 1]).write_text(json.dumps({
    "arguments": arguments[3:],
    "config": json.loads((folder / "config.json").read_text()),
    "files": sorted(os.listdir(folder)),
    "environment": sorted(name for name in os.environ if name.startswith("HF_")),
}))
"""


@pytest.fixture
def tools(tmp_path):
    """A stand-in for the converter, which writes down what it is given."""
    return converter_stub.write(tmp_path / "tools", SCRIPT)


def model(folder, **config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("model.safetensors", "tokenizer.json", "README.md"):
        (folder / name).write_text("{}")
    return folder


def test_the_converter_runs_offline_without_secrets_on_a_copy_of_the_config(tools, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    source = model(tmp_path / "in", model_type="gpt2", n_positions=64, auto_map={"AutoModel": "x--y.Z"})
    convert.convert_model(tools, source, tmp_path / "out", "f32", "A name", {})
    found = json.loads((tmp_path / "out").read_text())
    assert found["arguments"] == ["--outtype", "f32", "--model-name", "A name"]
    # transformers 5 writes no n_ctx, which the converter needs; code of a repository is never run
    assert found["config"] == {"model_type": "gpt2", "n_positions": 64, "n_ctx": 64}
    assert found["files"] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert "HF_HUB_OFFLINE" in found["environment"]
    assert "HF_TOKEN" not in found["environment"]
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert "n_ctx" not in json.loads((source / "config.json").read_text())


def test_the_reason_of_the_converter_is_said(tools, tmp_path):
    (tools / "convert_hf_to_gguf.py").write_text(
        "import sys; print('INFO:x:loading\\nERROR:hf-to-gguf:Model Bart is not supported', file=sys.stderr); sys.exit(1)"
    )
    with pytest.raises(UserError, match=r"converter refuses this model \(Model Bart is not supported\)"):
        convert.convert_model(tools, model(tmp_path / "in", model_type="bart"), tmp_path / "out", "f32", "A", {})


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({"model_type": "t5", "d_model": 64, "tie_word_embeddings": True}, True),
        ({"model_type": "t5", "d_model": 64}, True),  # T5 1.0: tied by default
        ({"model_type": "t5", "d_model": 64, "tie_word_embeddings": False}, False),
        ({"model_type": "t5", "d_model": 64, "tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ({"model_type": "mt5", "d_model": 64, "tie_word_embeddings": False}, False),
        ({"model_type": "llama", "tie_word_embeddings": True}, False),
    ],
)
def test_a_t5_with_a_tied_head_is_refused(config, refused, tmp_path):
    folder = model(tmp_path / "in", **config)
    message = r"does not scale the logits .*64 \*\* 0.5 times as large"
    with pytest.raises(UserError, match=message) if refused else nullcontext():
        convert.check_model(folder)


def test_the_sliding_layers_of_a_gemma_are_those_of_its_config(tmp_path):
    kinds = ["sliding_attention", "full_attention"]
    key = "{arch}.attention.sliding_window_pattern"
    gemma = model(tmp_path / "gemma", model_type="gemma3_text", layer_types=kinds)
    assert convert._sliding_layers(gemma) == {key: [True, False]}
    assert convert._sliding_layers(model(tmp_path / "qwen", model_type="qwen3", layer_types=kinds)) == {}


def test_which_tokenizers_need_no_digest(tmp_path):
    def name(pre, merges, kind="BPE", normalizer=None):
        file = tmp_path / "tokenizer.json"
        file.write_text(
            json.dumps({"pre_tokenizer": pre, "normalizer": normalizer, "model": {"type": kind, "merges": merges}})
        )
        return driver.pre_tokenizer(file)

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    assert name(byte_level, [["a", "b"]]) == "gpt-2"
    assert name({**byte_level, "use_regex": False}, []) == "gpt-2"
    assert name({**byte_level, "use_regex": False}, [["a", "b"]]) is None
    assert name({**byte_level, "add_prefix_space": True}, []) is None
    assert name({"type": "Split"}, []) is None
    assert name(byte_level, [], kind="Unigram") is None
    assert name(byte_level, [], normalizer={"type": "Lowercase"}) is None
