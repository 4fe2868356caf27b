"""Sampling settings: each has the warper that transformers gives it, in the same order."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList

from llmft.generation.sampling import SAMPLING_KEYS, Sampling, sampling_settings

VALUES = {
    "temperature": 0.7,
    "top_h": 0.4,
    "top_k": 5,
    "top_p": 0.9,
    "min_p": 0.1,
    "typical_p": 0.8,
    "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.01,
}


def warpers_of_transformers(settings: dict[str, float]) -> list[str]:
    config = GenerationConfig(do_sample=True, **{"top_k": 0, **settings})
    config._eos_token_tensor = None  # pyright: ignore[reportAttributeAccessIssue]
    mixin: Any = type("Model", (GenerationMixin,), {"config": type("Config", (), {"is_encoder_decoder": False})()})()
    processors = mixin._get_logits_processor(config, 1, torch.ones(1, 1, dtype=torch.long), None, LogitsProcessorList())
    return [type(processor).__name__ for processor in processors]


@pytest.mark.parametrize("settings", [*({key: value} for key, value in VALUES.items()), VALUES], ids=str)
def test_warpers_are_those_of_transformers(settings):
    assert set(VALUES) == set(SAMPLING_KEYS)
    chosen = sampling_settings({"do_sample": True, "top_k": 0, **settings})
    assert chosen is not None
    ours = [type(warper).__name__ for warper in Sampling(chosen, seed=1).warpers]
    assert ours == warpers_of_transformers(settings)
    assert len(ours) == len(settings)
