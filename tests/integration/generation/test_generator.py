"""Batched generation equals single generation, and the prompt is the trained one."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmft.config.groups import prompt_config
from llmft.data.records import Turn
from llmft.generation.generator import Generator
from llmft.models.backbone.open import Backbone
from tests.conftest import TINY

CONTEXTS = [(Turn("user", "word " * length),) for length in (1, 30, 3, 12, 7)]


def sharpened(name, load_config):
    """A tiny model with weights four times as large, so that its logits differ."""
    backbone = Backbone(load_config(f"model={name}").model, prompt=prompt_config("auto"))
    model = backbone.load()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    return model, backbone.codec


@pytest.mark.parametrize("settings", ["greedy", "beam", "sample"])
@pytest.mark.parametrize("name", TINY)
def test_batched_answers_equal_single_ones(name, settings, load_config):
    model, codec = sharpened(name, load_config)
    generation = load_config(f"generation={settings}", "generation.max_new_tokens=12").generation.node()
    five: Any = {**generation, "batch_size": 5}  # pyright: ignore[reportGeneralTypeIssues]
    together = Generator(model, codec, five).answers(CONTEXTS)
    assert len({answer.text for answer in together}) > 1
    assert Generator(model, codec, five).answers(CONTEXTS) == together
    assert Generator(model, codec, five).with_settings(batch_size=1).answers(CONTEXTS) == together
    assert Generator(model, codec, five).answers(CONTEXTS[::-1]) == together[::-1]


@pytest.mark.parametrize("name", TINY)
def test_generation_starts_from_the_trained_prompt(name, load_config, monkeypatch):
    model, codec = sharpened(name, load_config)
    context = (Turn("system", "S </s> <|endoftext|>"), Turn("user", "Q </s> <|endoftext|>"))
    row = codec.encode(codec.template.render(context), "A")
    fed = []
    real = model.generate

    def watch(**batch):
        fed.append(batch["input_ids"].tolist())
        return real(**batch)

    monkeypatch.setattr(model, "generate", watch)
    Generator(model, codec, {"max_new_tokens": 2, "batch_size": 1, "seed": 0}).answers([context])
    assert fed == [[row.input_ids[: row.prompt_length]]]


@pytest.mark.parametrize("name", TINY)
def test_an_answer_ends_at_the_first_stop_token(name, load_config, monkeypatch):
    model, codec = sharpened(name, load_config)
    text = codec.tokenizer("ab", add_special_tokens=False)["input_ids"]
    pad, stop = codec.tokenizer.pad_token_id, codec.stop_id

    def fake(*, input_ids, stopping_criteria, **_):
        ids = torch.full((len(input_ids), 1), pad) if model.config.is_encoder_decoder else input_ids
        for column in torch.tensor([[*text, stop, pad, pad], [*text, *text, text[0]]]).T:
            ids = torch.cat([ids, column[:, None]], dim=1)
            if stopping_criteria(ids, None).all():
                break
        return SimpleNamespace(sequences=ids, past_key_values=SimpleNamespace(layers=[]))

    monkeypatch.setattr(model, "generate", fake)
    settings = {"max_new_tokens": 5, "renormalize_logits": True, "batch_size": 2, "seed": 0}
    found = Generator(model, codec, settings).answers([CONTEXTS[0], CONTEXTS[1]])
    assert [(answer.text, answer.ended, answer.tokens) for answer in found] == [("ab", True, 2), ("ababa", False, 5)]


def test_inference_restores_every_modules_mode(load_config):
    model, codec = sharpened("tiny_llama", load_config)
    model.train()
    model.lm_head.eval()
    with Generator(model, codec, {"batch_size": 1, "seed": 0}).decoder().inference():
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert model.training
    assert not model.lm_head.training
    assert torch.is_grad_enabled()
