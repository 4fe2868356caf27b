"""``model/`` through plain transformers and peft: merged weights give the adapter's logits, untied heads survive, all settings travel."""

import json
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from peft import PeftModel
from transformers import AutoTokenizer, GenerationConfig

from llmft.data.alpaca import Alpaca
from llmft.data.sources import find, read
from llmft.models.backbone.locate import locate
from llmft.models.backbone.open import TrainedBackbone
from llmft.runs.open import open_run
from tests.conftest import TINY

RUN = ("data=alpaca", "data.path=sample", "data.limit=30", "trainer.max_steps=4", "optim.lr=5e-3", "scheduler=constant", "questions=0", "evaluate.rows=0", "report.write=false", "logger=none", "baseline=false",
       "callbacks.samples.number=0", "generation=beam", "generation.max_new_tokens=9", "output_dir=run")  # fmt: skip
IDS = torch.tensor([[7, 40, 90, 12, 55]])


def logits(model):
    inputs = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=IDS, **inputs).logits


def trained(folder):
    cfg: Any = open_run(str(folder))[1]
    backbone = TrainedBackbone(folder / "model", cfg)
    return cfg, backbone.family.auto_class, backbone.load()


@pytest.mark.parametrize(
    "model",
    ["tiny_t5", "tiny_llama", *(pytest.param(model, marks=pytest.mark.slow) for model in ("tiny_gpt2", "tiny_gemma"))],
)
def test_merged_weights_give_the_adapters_logits(model, llmft, tmp_path):
    code, _, err = llmft(f"model={model}", "peft=lora", "peft.targets=all-linear", *RUN)
    assert code == 0, err
    cfg, auto_class, _ = trained(tmp_path / "run")
    base = auto_class.from_pretrained(locate(cfg.model), dtype=torch.float32)
    before = logits(base)
    adapter = PeftModel.from_pretrained(base, tmp_path / "run" / "model")
    expected = logits(adapter)
    assert (expected - before).abs().max() > 1e-2  # the training changed it
    merged = adapter.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(auto_class.from_pretrained(tmp_path / "merged")), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "peft"),
    [
        pytest.param("tiny_llama", "qlora", marks=pytest.mark.slow),
        pytest.param("tiny_gpt2", "qlora", marks=pytest.mark.slow),
        pytest.param("tiny_t5", "lora_8bit", marks=pytest.mark.slow),
        pytest.param("tiny_gemma", "dora", marks=pytest.mark.slow),
        pytest.param("tiny_t5", "rslora", marks=pytest.mark.slow),
    ],
)
def test_an_adapter_of_a_quantized_base_merges_into_full_precision(model, peft, llmft, tmp_path):
    code, _, err = llmft(f"model={model}", f"peft={peft}", "peft.targets=all-linear", *RUN)
    assert code == 0, err
    cfg, auto_class, quantised = trained(tmp_path / "run")
    base = auto_class.from_pretrained(locate(cfg.model), dtype=torch.float32)
    adapter = PeftModel.from_pretrained(base, tmp_path / "run" / "model")
    expected = logits(adapter)
    merged = adapter.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    assert not hasattr(merged.config, "quantization_config")
    # the run's own evaluation uses the base as it was trained on, rounded
    difference = (logits(quantised) - expected).abs().max()
    assert difference > 0.01 if peft in ("qlora", "lora_8bit") else difference < 1e-4


def test_an_untied_t5_head_survives_training_saving_and_loading(llmft, tmp_path, load_config):
    cfg = load_config("model=tiny_t5").model
    auto_class = get_class(cfg.target).auto_class
    place = locate(cfg)
    untied = auto_class.from_pretrained(place)
    # as FLAN-T5 comes: transformers 5 ties by its config, and keeps a head of its own that it finds in the file
    head = torch.randn(untied.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
    untied.lm_head.weight = torch.nn.Parameter(head)
    untied.save_pretrained(tmp_path / "untied")
    AutoTokenizer.from_pretrained(place).save_pretrained(tmp_path / "untied")
    start = untied.lm_head.weight.clone()
    code, _, err = llmft("model=tiny_t5", f"model.path={tmp_path / 'untied'}", "peft=none", *RUN)
    assert code == 0, err
    state = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    plain = auto_class.from_pretrained(tmp_path / "run" / "model")
    assert torch.equal(plain.lm_head.weight, state["model.lm_head.weight"])
    assert not torch.equal(plain.lm_head.weight, start)
    assert not torch.equal(plain.lm_head.weight, plain.shared.weight)
    torch.testing.assert_close(logits(plain), logits(trained(tmp_path / "run")[2]), rtol=0, atol=0)


@pytest.mark.parametrize("model", TINY)
def test_tokenizer_prompt_and_generation_settings_travel_along(model, llmft, tmp_path):
    assert llmft(f"model={model}", "peft=lora", *RUN)[0] == 0
    folder = tmp_path / "run" / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = GenerationConfig.from_pretrained(folder)
    assert (
        settings.num_beams,
        settings.repetition_penalty,
        settings.no_repeat_ngram_size,
        settings.max_new_tokens,
    ) == (4, 1.3, 3, 9)
    _, rows, _ = llmft("preview", f"model={model}", "data=alpaca", "data.path=sample", "format=json", "preview.rows=1")
    row = json.loads(rows.splitlines()[0])
    first = Alpaca.to_example(next(iter(read(find("sample", "alpaca")))).row)
    messages = [turn.message() for turn in first.context]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert ids == row["input_ids"][: len(ids)]
    if model != "tiny_t5":
        assert row["labels"][: len(ids)] == [-100] * len(ids)
    else:
        assert ids == row["input_ids"]
    assert tokenizer.eos_token_id in (
        settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    )
