"""Sampling settings: each has the warper that transformers gives it, in the same order."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList

from llmft.generation.sampling import SAMPLING_KEYS, Sampling, draw, draw_in_integers, sample_tokens, sampling_settings

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_integers_draw_the_token_at_which_the_distribution_passes_the_number(dtype):
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125, 0.0]).log().to(dtype)
    numbers = [0.0, 0.49, 0.51, 0.74, 0.76, 0.87, 0.88, 1 - 2**-53]
    wanted = [0, 0, 1, 1, 2, 2, 3, 3]
    assert draw_in_integers(logits.expand(8, 5), numbers)[:, 0].tolist() == wanted
    assert [int(draw_in_integers(logits[None], [number])) for number in numbers] == wanted  # alone as in a batch
    if dtype == torch.float32:
        assert draw(logits.expand(8, 5), numbers)[:, 0].tolist() == wanted


def test_integers_draw_as_floats_do():
    torch.manual_seed(0)
    logits, numbers = torch.randn(200, 1000) * 3, torch.rand(200, dtype=torch.float64).tolist()
    assert torch.equal(draw_in_integers(logits, numbers), draw(logits, numbers))


def test_broken_logits_draw_a_token_of_the_vocabulary():
    logits = torch.full((2, 5), torch.nan)
    assert all(0 <= token < 5 for token in draw_in_integers(logits, [0.0, 0.99])[:, 0].tolist())


class No64(TorchDispatchMode):
    """Refuses float64 on a device other than the CPU, as MPS does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "cpu" and tensor.dtype == torch.float64:
                raise TypeError(f"{func}: no float64 on {tensor.device}")
        return made


@pytest.mark.parametrize("rows", [(0, 1, 2), (2, 0)], ids=str)
def test_sampling_needs_no_float64_on_a_device(rows):
    settings = {
        name: value for name, value in VALUES.items() if name not in ("top_h", "eta_cutoff")
    }  # these ask for a number
    samplings = {row: Sampling(settings, seed=1) for row in rows}
    with No64():
        out = sample_tokens(
            samplings, torch.ones(3, 4, dtype=torch.long, device="meta"), torch.ones(3, 9, device="meta")
        )
        with pytest.raises(TypeError, match="no float64"):
            out.double()
    assert (out.shape, out.dtype) == ((3, 9), torch.float32)
