"""``form=ctranslate2``: what CTranslate2 computes from the exported folder is the trained model, for each family that it converts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer, Gemma2Config, LlamaConfig, T5GemmaConfig

from llmft import UserError, load_run
from llmft.data.records import Turn
from llmft.export.forms import ctranslate2
from llmft.generation.ctranslate2_decoder import CTranslate2Generator
from llmft.generation.load import load_generator, load_streaming
from llmft.models.backbone import tiny
from llmft.runtimes.ctranslate2 import CTranslate2Runtime
from llmft.runtimes.pytorch import open_folder
from tests.conftest import composed, typed_config
from tests.support import twins

PROMPTS = ("hello, what is it", "yes")


def test_a_seq2seq_run_and_a_wrong_t5_scale(full_run, llmft, tmp_path, monkeypatch):
    code, out, err = llmft("export", f"run={full_run}", "to=out", "form=ctranslate2")
    assert code == 0, err
    assert "ctranslate2, float32 in CTranslate2" in out
    passport = json.loads((tmp_path / "out" / "passport.json").read_text())
    assert passport["status"] == "passed"
    assert passport["difference"] < 1e-5
    assert {"model.bin", "shared_vocabulary.json", "tokenizer.json", "chat_template.jinja"} < {
        file.name for file in (tmp_path / "out").iterdir()
    }
    # the planted fault: the converter reads the scale from the tied head's flag, which transformers 5 sets for every T5
    monkeypatch.setattr(ctranslate2, "_scales_outputs", lambda config: not config.scale_decoder_outputs)
    code, _, err = llmft("export", f"run={full_run}", "to=wrong", "form=ctranslate2")
    assert code == 2
    assert "form=ctranslate2: logits: " in err
    assert not (tmp_path / "wrong").exists()


def test_a_causal_run_with_an_adapter(lora_run, tmp_path, monkeypatch):
    done = load_run(lora_run).export(tmp_path / "out", form="ctranslate2")
    assert done.forms[0].passport.status == "passed"
    assert done.difference is not None
    assert done.difference < 1e-4
    monkeypatch.setattr("llmft.generation.load.task_overrides", list)  # those of the training in this process
    trained, served = (
        load(typed_config(composed(f"run={path}", command="chat"), "chat"))[0]
        for load, path in ((load_generator, lora_run), (load_streaming, tmp_path / "out"))
    )
    assert isinstance(served, CTranslate2Generator)
    asked = [[Turn("user", text)] for text in PROMPTS]
    assert served.answers(asked) == trained.answers(asked)


@pytest.mark.slow
def test_weights_of_8_bits_are_judged_by_the_loss(lora_run, tmp_path):
    done = load_run(lora_run).export(tmp_path / "out", form="ctranslate2", quantize="int8")
    assert [check.passed for check in done.forms[0].passport.checks if check.name == "held-out loss"] == [True]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["full_run", "lora_run"])
def test_the_code_of_the_card_runs(run, request, tmp_path):
    load_run(request.getfixturevalue(run)).export(tmp_path / "out", form="ctranslate2")
    card = (tmp_path / "out" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "out", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def built(name: str, folder: Path) -> Path:
    if name.startswith("tiny_"):
        folder.mkdir()
        tiny.build(name.removeprefix("tiny_"), folder)
    else:
        twins.build(name, folder)
    if not (folder / "generation_config.json").is_file():
        ids = AutoConfig.from_pretrained(folder)
        kept = {"eos_token_id": ids.eos_token_id, "pad_token_id": ids.pad_token_id}
        (folder / "generation_config.json").write_text(json.dumps(kept))
    return folder


MORE: dict[str, Any] = {
    "gemma": twins.Twin(twins._causal("Gemma"), twins._llama),
    "llama_linear": twins.Twin(
        twins._causal("Llama", rope_parameters={"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}), twins._llama
    ),
}


OTHERS = (
    "tiny_t5", "mt5", "umt5", "byt5", "bart", "nllb", "tiny_gpt2", "tiny_llama", "llama_linear", "mistral", "qwen2", "qwen3",
    "gemma", "tiny_gemma",
)  # fmt: skip


@pytest.mark.parametrize("name", ["t5_untied", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_each_architecture_gives_the_logits_and_answers_of_transformers(name, tmp_path, monkeypatch):
    monkeypatch.setitem(twins.CAUSAL, name, twins.CAUSAL.get(name) or MORE.get(name))
    source, folder = built(name, tmp_path / "model"), tmp_path / "out"
    folder.mkdir()
    ctranslate2.check(AutoConfig.from_pretrained(source))
    ctranslate2.convert(source, folder)
    plain, converted = open_folder(source), CTranslate2Runtime(folder, threads=1)
    prompts = [AutoTokenizer.from_pretrained(source)(text)["input_ids"] for text in PROMPTS]
    answers = plain.generate(prompts, 10)
    assert converted.generate(prompts, 10) == answers
    for prompt, answer in zip(prompts, answers, strict=True):
        expected, found = plain.logits(prompt, answer), converted.logits(prompt, answer)
        assert abs(expected - found[:, : expected.shape[1]]).max() < 1e-4


@pytest.mark.slow
def test_a_prompt_beyond_the_sliding_window_is_refused(tmp_path):
    source, folder = built("tiny_gemma", tmp_path / "model"), tmp_path / "out"
    folder.mkdir()
    ctranslate2.convert(source, folder)
    plain, converted = open_folder(source), CTranslate2Runtime(folder, threads=1)
    inside, beyond = list(range(10, 42)), list(range(10, 43))  # its window is 32
    assert converted.generate([inside], 40) == plain.generate([inside], 40)  # decoding goes beyond
    with pytest.raises(UserError, match="a prompt of 33 tokens is longer than the model's sliding window"):
        converted.generate([beyond], 4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Gemma2Config(), "Gemma2 is not an architecture"),  # its soft-capped attention
        (T5GemmaConfig(), "T5Gemma is not an architecture"),
        (
            LlamaConfig(rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
            "rope_type=llama3: CTranslate2 computes other rotary positions",
        ),
    ],
)  # fmt: skip
def test_what_it_would_convert_wrongly_is_refused_by_name(config, message):
    with pytest.raises(UserError, match=message):
        ctranslate2.check(config)
