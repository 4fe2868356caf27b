"""The last layer computes no MLP and no output projection for positions without a loss: same loss and gradients."""

from typing import Any

import pytest
import torch

from llmft.models import last_layer
from tests.guarantees.reference import measured
from tests.guarantees.test_packing_changes_nothing import step
from tests.guarantees.test_shared_prefixes_change_nothing import examples, prepared, qwen3

__all__ = ["prepared", "qwen3"]  # fixtures


@pytest.fixture
def seen(monkeypatch):
    """How many tokens each module of the last layer has seen that left some out."""
    whole: Any = last_layer.at_positions
    counts, real = [], whole.__wrapped__

    def at_positions(modules, chosen):
        counts.append((len(modules), len(chosen.index)))
        return real(modules, chosen)

    for place in ("llmft.models.attention.kernels", "llmft.models.first_batch"):
        monkeypatch.setattr(f"{place}.at_positions", last_layer.contextmanager(at_positions))
    return counts


@pytest.mark.parametrize("peft", ["none", "lora"])
@pytest.mark.parametrize("model", ["tiny_gpt2", "tiny_llama", "tiny_gemma", "qwen3"])
def test_loss_and_gradients_are_the_same(model, peft, prepared, seen):
    """Padded rows, one flat sequence, with shared prefixes, and packed ones."""
    data, module = prepared(model, peft)
    kernels, rows = module.forward_pass.kernels, examples()
    expected = measured(module.model, [(row.input_ids, row.labels) for row in rows])
    norm = torch.nn.utils.get_total_norm(expected["gradients"].values())
    ways = {
        "padded": (False, "off", 1),
        "flat": (True, "off", 1),
        "shared": (True, "exact", 1),
        "packed": (True, "off", 2),
    }
    if model == "tiny_gemma":  # packed sequences are longer than its window
        ways.pop("packed")
    for name, (kernels.varlen, kernels.shared_prefix, size) in ways.items():
        sequences = [rows[n : n + size] for n in range(0, len(rows), size)]
        loss, tokens, gradients = step(module, sequences, data.pad_id)
        assert kernels.last_layer_is_equivalent, name
        assert seen.pop() == (2, expected["tokens"]), name
        assert (loss, tokens) == (pytest.approx(expected["loss"], rel=1e-6), expected["tokens"]), name
        assert gradients.keys() == expected["gradients"].keys()
        apart = torch.nn.utils.get_total_norm([gradients[n] - g for n, g in expected["gradients"].items()])
        assert float(apart) <= 2e-6 * float(norm), name
