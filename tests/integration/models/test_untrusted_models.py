"""Models, adapters and GGUF files of somebody else: loaded, or refused in one line; nothing in them is run or asked about."""

import json
import os
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from llmft.models.backbone import gguf, load, tiny, untrusted
from llmft.runs import checkpoint_io
from llmft.utils.errors import UserError
from tests.conftest import composed, typed_config

CODE = """import pathlib
pathlib.Path({mark!r}).touch()
from transformers import GPT2Config, GPT2LMHeadModel

class Config(GPT2Config):
    model_type = "theirs"

class Model(GPT2LMHeadModel):
    config_class = Config
"""


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.file),))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs") / "base"
    tiny.build("gpt2", folder)
    return folder


@pytest.fixture
def folder(base, tmp_path):
    return Path(shutil.copytree(base, tmp_path / "theirs"))


def loaded(folder: Path, **keys: Any) -> Any:
    cfg = typed_config(composed("model=tiny_gpt2")).model.replaced(keys)
    load.load_tokenizer(str(folder), cfg)
    return load.load_model(str(folder), cfg)


def change(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def lacking(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("transformer.h.0.attn.c_attn.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pointing(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / untrusted.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"transformer.wte.weight": name}}))


CASES = {
    "pickle alone": (lambda f: ((f / "model.safetensors").unlink(), (f / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(f / "ran")))), "no file named model.safetensors"),
    "pickle by index": (lambda f: pointing(f, "pytorch_model.bin"), "'pytorch_model.bin' is no safetensors file of this folder"),
    "outside by index": (lambda f: pointing(f, "../outside.safetensors"), "'../outside.safetensors' is no safetensors file"),
    "outside by config": (lambda f: (pointing(f, "x.safetensors"), change(f / "config.json", transformers_weights="../outside.safetensors")), "is no safetensors file|must reference a file inside|no file named"),
    "a weight missing": (lacking, "its files lack 1 weights of this architecture, the first transformer.h.0.attn.c_attn.weight"),
    "another width": (lambda f: change(f / "config.json", n_embd=32), r"do not fit its config.json: transformer\S* has shape \[192\], the config makes it \[96\] .\d+ weights differ"),
    "too few embeddings": (lambda f: change(f / "config.json", vocab_size=999), r"transformer.wte.weight has shape \[257, 64\], the config makes it \[999, 64\]"),
    "negative sizes": (lambda f: change(f / "config.json", n_layer=-3, vocab_size=-1), "transformers cannot load this folder"),
    "a dtype that calls": (lambda f: change(f / "config.json", dtype="os.system"), "transformers cannot load this folder"),
    "a huge header": (lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 10**12) + b"{}"), "header too large"),
    "half a file": (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]), "cannot load this folder"),
    "a list for a config": (lambda f: (f / "config.json").write_text("[]"), "must be a JSON object"),
    "a deep config": (lambda f: (f / "config.json").write_text("[" * 100_000), "cannot be read"),
    "another family": (lambda f: tiny.build("t5", f), "model_type='t5', a seq2seq model, and model=tiny_gpt2 loads causal models; pass model=auto"),
    "no language model": (lambda f: change(f / "config.json", model_type="vit"), "model_type='vit', of which transformers has no causal language model"),
    "quantized": (lambda f: change(f / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}), "quantized already .quantization_config in config.json: gptq.*; pass the model that they were made of"),
    "an empty tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "transformers cannot load this folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_model_folder_that_is_no_whole_safetensors_model_is_refused(name, folder):
    spoil, message = CASES[name]
    spoil(folder)
    with pytest.raises(UserError, match=message) as error:
        loaded(folder)
    assert "\n" not in str(error.value)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_refused_without_a_question(file, folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on standard input"))
    (folder / "code.py").write_text(CODE.format(mark=str(folder / "ran")))
    change(folder / file, auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"})
    with pytest.raises(
        UserError, match=rf"brings code of its own \(auto_map in {file}\).* model.trust_remote_code=true"
    ):
        loaded(folder)
    assert not (folder / "ran").exists()


def test_code_that_the_user_trusts_is_run(folder, monkeypatch, tmp_path):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (folder / "code.py").write_text(CODE.format(mark=str(folder / "ran")))
    names = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    change(folder / "config.json", auto_map=names, model_type="theirs")
    assert type(loaded(folder, trust_remote_code=True)).__name__ == "Model"
    assert (folder / "ran").exists()


def test_a_command_line_refuses_code_in_one_line(folder, llmft):
    change(folder / "config.json", auto_map={"AutoConfig": "code.Config"})
    code, _, err = llmft("model=tiny_gpt2", f"model.path={folder}", "data.path=sample", "output_dir=run")
    assert code == 2
    assert "brings code of its own" in err


def test_a_run_that_says_itself_that_its_code_is_trusted_is_refused(lora_run, llmft, tmp_path):
    run = shutil.copytree(lora_run, tmp_path / "run")
    cfg = OmegaConf.load(run / "config.yaml")
    cfg.model.trust_remote_code = True
    OmegaConf.save(cfg, run / "config.yaml")
    code, _, err = llmft("answer", f"run={run}", "question=x")
    assert code == 2
    assert "model.trust_remote_code=true: set in a config file" in err


def test_a_run_that_names_a_class_of_elsewhere_is_refused(lora_run, llmft, tmp_path):
    run = shutil.copytree(lora_run, tmp_path / "run")
    cfg = OmegaConf.load(run / "config.yaml")
    cfg.data._target_, cfg.allow_targets = "shutil.rmtree", ["shutil"]
    OmegaConf.save(cfg, run / "config.yaml")
    for command in (["evaluate", f"run={run}"], ["answer", f"run={run}", "question=x"]):
        code, _, err = llmft(*command)
        assert code == 2
        assert "data._target_=shutil.rmtree: not allowed" in err


def settings(adapter: Path, **keys: Any) -> None:
    change(adapter / "adapter_config.json", **keys)


def reshaped(adapter: Path, take: Any) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file({name: take(weight).contiguous() for name, weight in load_file(file).items()}, file)


def half_of(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file({name: weight for name, weight in load_file(file).items() if "lora_A" in name}, file)


ADAPTERS = {
    "pickle": (lambda a: ((a / "adapter_model.safetensors").unlink(), (a / "adapter_model.bin").write_bytes(pickle.dumps(Payload(a / "ran")))), "adapter_model.safetensors cannot be read"),
    "other base": (lambda a: reshaped(a, lambda w: w if w.shape[0] == 16 else w[:-2]), "the adapter does not fit the base model"),
    "other layers": (lambda a: settings(a, target_modules=["c_proj"]), "of another base model; only one of the two has"),
    "no such layers": (lambda a: settings(a, target_modules=["q_proj"]), "the adapter does not fit the base model"),
    "rank": (lambda a: settings(a, r=8), "weights have rank 16, its adapter_config.json says r=8"),
    "rank text": (lambda a: settings(a, r="x"), "r must be a whole number"),
    "targets": (lambda a: settings(a, target_modules="(a+)+$"), "target_modules must be a list of names"),
    "other method": (lambda a: settings(a, peft_type="XLORA", adapters={"x": "/etc"}), "must be of LoRA, got 'XLORA'"),
    "cache file": (lambda a: settings(a, init_lora_weights="corda", corda_config={"cache_file": "/tmp/x"}), "sets '(init_lora_weights|corda_config)', which is not taken"),
    "replication": (lambda a: settings(a, layer_replication=[[0, 10**9]]), "sets 'layer_replication', which is not taken"),
    "module": (lambda a: settings(a, auto_mapping={"parent_library": "os", "base_model_class": "system"}), "sets 'auto_mapping', which is not taken"),
    "NaN": (lambda a: reshaped(a, lambda w: w * float("nan")), r"adapter_model.safetensors: base_model\S*weight holds NaN or infinity"),
    "integers": (lambda a: reshaped(a, lambda w: w.long()), r"adapter_model.safetensors: base_model\S*weight is torch.int64"),
    "half of the weights": (half_of, "of another base model; only one of the two has"),
    "no json": (lambda a: (a / "adapter_config.json").write_text("{"), "cannot be read"),
    "vocabulary": (lambda a: change_tokens(a), "its tokenizer has 258 tokens, its base 257; the vocabulary belongs to another base"),
}  # fmt: skip


def change_tokens(adapter: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(adapter)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_that_does_not_fit_is_named_so(name, lora_run, tmp_path):
    from llmft.runs.open import open_run

    run = Path(shutil.copytree(lora_run, tmp_path / "run"))
    spoil, message = ADAPTERS[name]
    spoil(run / "model")
    from llmft.generation.load import load_tuned

    folder, cfg = open_run(str(run))
    with pytest.raises(UserError, match=message) as error:
        load_tuned(folder, cfg, cfg.generation)
    assert "\n" not in str(error.value)
    assert not (run / "model" / "ran").exists()


def with_norm(model: Path, take: Any) -> None:
    file, name = model / "model.safetensors", "encoder.final_layer_norm.weight"
    weights = load_file(file)
    save_file(weights | {name: take(weights[name])}, file, metadata={"format": "pt"})


TRAINED = {
    "not finite": (
        lambda m: with_norm(m, lambda w: w.index_fill(0, torch.tensor([3]), float("inf"))),
        "model: encoder.final_layer_norm.weight holds NaN or infinity",
    ),
    "integers": (
        lambda m: with_norm(m, lambda w: w.long()),
        "model.safetensors: encoder.final_layer_norm.weight is I64",
    ),
    "vocabulary": (change_tokens, "its tokenizer has [0-9,]+ ids, the model has [0-9,]+ embeddings"),
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_fully_trained_model_that_is_damaged_is_named_so(name, full_run, tmp_path):
    from llmft.generation.load import load_tuned
    from llmft.runs.open import open_run

    run = Path(shutil.copytree(full_run, tmp_path / "run"))
    spoil, message = TRAINED[name]
    spoil(run / "model")
    folder, cfg = open_run(str(run))
    with pytest.raises(UserError, match=message):
        load_tuned(folder, cfg, cfg.generation)


def test_what_an_adapter_calls_its_base_is_not_opened(lora_run, tmp_path, monkeypatch):
    from llmft.generation.load import load_tuned
    from llmft.runs.open import open_run

    run = Path(shutil.copytree(lora_run, tmp_path / "run"))
    settings(run / "model", base_model_name_or_path="/proc/1/mem", revision="../x")
    folder, cfg = open_run(str(run))
    monkeypatch.setattr(
        "peft.peft_model.infer_device", lambda: pytest.fail("weights of a CPU's model go through a GPU")
    )
    assert load_tuned(folder, cfg, cfg.generation).model.peft_config["default"].r == 16


def header(tensors: int, pairs: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"not a model",
        header(0, 0),
        header(2**60, 0) + bytes(64),
        header(0, 2**60) + bytes(64),
        header(1, 1) + struct.pack("<Q", 2**62) + b"key",
        header(1, 0) + struct.pack("<Q", 1) + b"x" + struct.pack("<I4QIQ", 4, *[2**40] * 4, 0, 0),
        header(0, 1) + struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<IQ", 8, 4) + b"evil",
    ],
)
def test_a_file_that_is_not_gguf_is_a_one_line_error(content, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(UserError, match="transformers cannot load this GGUF file") as error:
        gguf.from_file(tmp_path / "model.gguf", AutoModelForCausalLM)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_checkpoint_runs_nothing(tmp_path):
    torch.save({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: cannot be used: it holds more than tensors and plain values"):
        checkpoint_io.load(tmp_path / "last.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["resume", "peft.adapter", "run"])
def test_a_url_is_no_checkpoint(key, llmft, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked a server"))
    command = ["answer", "question=x"] if key == "run" else ["model=tiny_gpt2", "output_dir=run"]
    code, _, err = llmft(*command, f"{key}=https://example.org/last.ckpt")
    assert code == 2
    assert "https:/" in err
