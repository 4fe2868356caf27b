"""Gradient checkpointing of all layers or of every N-th, with activations in CPU memory: the same gradients, to the bit."""

import pytest
import torch
from transformers import modeling_utils
from transformers.modeling_layers import GradientCheckpointingLayer

from llmft.models.backbone.load import recompute_activations

IDS = torch.arange(24).reshape(2, 12)


@pytest.fixture
def model(load_config):
    from llmft.models.backbone.open import Backbone

    return Backbone.open(load_config("model=tiny_llama", "peft=none", "model.dropout=0")).load()


def gradients(model):
    model.zero_grad()
    model(IDS, labels=IDS).loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    ("setting", "recomputed"), [("true", [True, True]), ("2", [True, False]), ("3", [True, False])]
)
def test_every_nth_layer_is_recomputed(setting, recomputed, model, load_config):
    expected = gradients(model)
    recompute_activations(model, load_config("model=tiny_llama", f"model.gradient_checkpointing={setting}").model)
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert [layer.gradient_checkpointing for layer in layers] == recomputed
    assert all(torch.equal(*pair) for pair in zip(gradients(model), expected, strict=True))


def test_offloaded_activations_come_back_as_they_were(model, load_config, monkeypatch):
    expected, moved = gradients(model), []

    class Counted(torch.autograd.graph.saved_tensors_hooks):  # save_on_cpu pins memory, for which there must be a GPU
        def __init__(self, **_):
            super().__init__(lambda tensor: moved.append(tensor.shape) or tensor.clone(), lambda copy: copy)

    monkeypatch.setattr(modeling_utils, "save_on_cpu", Counted)
    recompute_activations(
        model, load_config("model=tiny_llama", "model.gradient_checkpointing=true").model, offload=True
    )
    assert all(torch.equal(*pair) for pair in zip(gradients(model), expected, strict=True))
    assert moved.count((2, 12, model.config.hidden_size)) == 2  # the input of each layer
