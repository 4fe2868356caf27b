"""The table of cards in models.md: what it takes from shallow models is what the whole model takes."""

import importlib.util

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("method", ["qlora", "full"])
@pytest.mark.parametrize("name", ["qwen2_5_0_5b", "gemma3_1b", "gpt2"])
def test_activations_of_two_layers_give_those_of_all(name, method):
    spec = importlib.util.spec_from_file_location("make_models", ROOT / "docs/make_models.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    entry = made.PUBLISHED[name]
    whole = made.activations(made.outlined(name, entry, method), 1024)
    assert made.all_activations(name, entry, method, [1024]) == [pytest.approx(whole, rel=0.02)]
