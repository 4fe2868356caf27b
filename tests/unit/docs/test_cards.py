"""The tables of cards in models.md: what is taken from shallow models is what the whole model takes."""

import importlib.util

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method"), [("smollm2_135m", "lora"), ("gpt2", "full"), ("gemma3_1b", "qlora"), ("qwen2_5_0_5b", "qlora")]
)
def test_activations_of_shallow_models_give_those_of_the_whole(name, method):
    spec = importlib.util.spec_from_file_location("make_models", ROOT / "docs/make_models.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    whole = made.outlined(name, method)
    assert made.activations(name, method, [1024]) == [pytest.approx(max(made.by_pass(whole, [1024])), rel=0.01)]
    assert made.held(name, method) == pytest.approx(made.states(whole, made.PUBLISHED[name]), rel=1e-5)
