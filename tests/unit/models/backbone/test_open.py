"""Opening a backbone: nothing is loaded before it is used, and then once."""

import pytest

from llmft.models.backbone import load, locate
from llmft.models.backbone.open import Backbone


def test_each_part_is_loaded_on_first_use(load_config, monkeypatch):
    calls = []
    for module, name in ((locate, "locate"), (load, "load_tokenizer"), (load, "load_config")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, name=name, real=real: calls.append(name) or real(*args))
    backbone = Backbone.open(load_config("model=tiny_llama", "data=alpaca", "data.path=sample"))
    assert calls == []
    assert (backbone.codec.tokenizer is backbone.tokenizer, backbone.prompt_name) == (True, "alpaca")
    assert calls == ["locate", "load_tokenizer", "load_config"]  # the codec compares the vocabularies
    assert backbone.config.hidden_size == 64
    assert calls == ["locate", "load_tokenizer", "load_config"]


def test_a_path_that_is_known_is_not_located_again(load_config, monkeypatch):
    monkeypatch.setattr(locate, "locate", lambda *_: pytest.fail("located again"))
    assert Backbone.open(load_config("model=tiny_llama"), path="/somewhere").path == "/somewhere"
