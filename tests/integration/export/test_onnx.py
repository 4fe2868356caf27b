"""``form=onnx``: what ONNX Runtime computes from the exported folder is the trained model, with and without a KV cache."""

import json
import subprocess
import sys
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from llmft import load_run
from llmft.export.forms import onnx
from llmft.runtimes.open import open_runtime
from llmft.runtimes.pytorch import open_folder
from tests.integration.export.test_ctranslate2 import PROMPTS, built
from tests.support import twins

HEADS: Any = {"hidden_size": 64, "head_dim": 16}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
MORE = {
    name: twins.Twin(twins._causal(kind, **HEADS, **options), twins._llama)
    for name, kind, options in (
        ("mistral_16", "Mistral", {"sliding_window": None}),
        ("qwen2_16", "Qwen2", {"tie_word_embeddings": True}),
        ("qwen3_16", "Qwen3", {}),
        ("gemma_16", "Gemma", {}),
        ("llama3_16", "Llama", {"rope_parameters": LLAMA3}),
    )
}


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("tiny_llama", "onnxruntime-genai"),
        *(pytest.param(name, "onnxruntime-genai", marks=pytest.mark.slow) for name in MORE),
        *(
            pytest.param(name, "ONNX Runtime", marks=pytest.mark.slow)
            for name in ("tiny_gpt2", "tiny_t5", "t5_untied", "bart", "tiny_gemma", "qwen3")
        ),
    ],
)
def test_each_architecture_gives_the_logits_and_answers_of_transformers(name, runtime, tmp_path, monkeypatch):
    monkeypatch.setitem(twins.CAUSAL, name, twins.CAUSAL.get(name) or MORE.get(name))
    source, folder = built(name, tmp_path / "model"), tmp_path / "out"
    folder.mkdir()
    onnx.check(AutoConfig.from_pretrained(source))
    onnx.convert(source, folder)
    plain, converted = open_folder(source), open_runtime(folder)
    assert converted.name.startswith(runtime)
    prompts = [AutoTokenizer.from_pretrained(source)(text)["input_ids"] for text in PROMPTS]
    answers = plain.generate(prompts, 10)
    assert converted.generate(prompts, 10) == answers
    for prompt, answer in zip(prompts, answers, strict=True):
        assert abs(plain.logits(prompt, answer) - converted.logits(prompt, answer)).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("run", ["full_run", "lora_run"])
def test_a_run_is_exported_with_its_passport_and_a_card_that_runs(run, request, tmp_path):
    done = load_run(request.getfixturevalue(run)).export(tmp_path / "out", form="onnx")
    assert done.forms[0].passport.status == "passed"
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "out", capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_the_stop_tokens_are_in_the_config_of_genai(tmp_path):
    source, folder = built("tiny_llama", tmp_path / "model"), tmp_path / "out"
    folder.mkdir()
    generation = json.loads((source / "generation_config.json").read_text())
    (source / "generation_config.json").write_text(json.dumps({**generation, "eos_token_id": [2, 9]}))
    onnx.convert(source, folder)
    assert json.loads((folder / "genai_config.json").read_text())["model"]["eos_token_id"] == [2, 9]
    assert open_runtime(folder).stop_ids == {2, 9}
