"""Faster kernels leave loss and gradients as plain PyTorch computes them."""

from dataclasses import replace

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import IGNORED
from llmft.models.attention import kernels, packing, varlen
from llmft.models.attention.kernels import Kernels
from tests.guarantees.test_packing_changes_nothing import packed

TINY = ("tiny_t5", "tiny_gpt2", "tiny_llama", "tiny_gemma")
DATA = ("data=alpaca", "data.path=sample", "data.limit=24", "model.dropout=0", "peft.dropout=0")


def step(module, batch):
    module.zero_grad()
    total, tokens = module.forward_pass.loss_sum(batch)
    total.backward()
    return total.item(), int(tokens), {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def uneven(data):
    """A batch with much padding."""
    rows = sorted((data.encoded["train"][n] for n in range(20)), key=lambda row: len(row.input_ids))
    return [rows[19], rows[0], rows[18], rows[1], rows[2]]


def assert_alike(found, expected, rel):
    assert found[0] == pytest.approx(expected[0], rel=rel)
    assert found[1] == expected[1]
    assert found[2].keys() == expected[2].keys()
    norm = torch.nn.utils.get_total_norm(expected[2].values())
    apart = torch.nn.utils.get_total_norm([found[2][n] - g for n, g in expected[2].items()])
    assert float(apart) <= rel * float(norm)


@pytest.mark.parametrize("peft", ["none", "lora"])
@pytest.mark.parametrize(
    ("model", "short"),
    [(model, short) for model in TINY for short in (0, 10**6) if (model, short) != ("tiny_gemma", 10**6)],
)
def test_fast_kernels_compute_what_plain_ones_do(model, short, peft, built, monkeypatch):
    """Padding-free, per sequence; short sequences in one batched call."""
    monkeypatch.setattr(varlen, "EAGER_UP_TO", 10**6)
    monkeypatch.setattr(kernels, "EAGER_UP_TO", 10**6)
    monkeypatch.setattr(varlen, "SHORT", short)
    overrides = [o for o in DATA if peft == "lora" or not o.startswith("peft")]
    data, module = built(f"model={model}", f"peft={peft}", *overrides, "model.attention=by_length")
    module.train()
    for p in module.parameters():
        p.data *= 1.5  # sharper than freshly made
    sequences = packed(data)
    single = training_batch([[row] for row in uneven(data)], data.pad_id)
    both = training_batch(sequences[:2], data.pad_id)
    used = module.forward_pass.kernels
    used.shared_prefix = "off"  # test_shared_prefixes_change_nothing.py
    assert (used.by_length, used.varlen, used.plain) == (True, True, False)
    if model != "tiny_gemma":  # its window is shorter than its rows
        assert module.forward_pass.unpad_if_faster(single)["input_ids"].shape == (
            1,
            int(single["attention_mask"].sum()),
        )  # no padding
    fast = [step(module, batch) for batch in (single, both)]
    assert used.packing_is_equivalent or model == "tiny_gemma"
    assert used.head_is_last
    assert module.model.config._attn_implementation == "sdpa"  # as answers are computed
    module.forward_pass.kernels = Kernels(plain=True)
    for found, batch in zip(fast, (single, both), strict=True):
        assert_alike(found, step(module, batch), rel=1e-5)


@pytest.mark.parametrize("model", TINY)
def test_an_example_without_labels_adds_nothing_when_unpadded(model, built):
    """As the filler of an uneven last batch."""
    data, module = built(f"model={model}", "peft=none", *[o for o in DATA if not o.startswith("peft")])
    rows = uneven(data)
    rows[1] = replace(rows[1], labels=[IGNORED] * len(rows[1].labels), supervised=0)
    batch = training_batch([[row] for row in rows], data.pad_id)
    found = step(module.train(), batch)
    module.forward_pass.kernels = Kernels(plain=True)
    assert_alike(found, step(module, batch), rel=1e-5)


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_llama"])
def test_a_model_whose_unpadded_examples_see_each_other_keeps_its_padding(model, built, monkeypatch):
    data, module = built(f"model={model}", "peft=none", *[o for o in DATA if not o.startswith("peft")])
    batch = training_batch([[row] for row in uneven(data)], data.pad_id)
    monkeypatch.setattr(packing, "lengths", lambda rows: [[rows.shape[1]] for _ in rows])
    found = step(module.train(), batch)
    assert module.forward_pass.kernels.packing_is_equivalent is False
    module.forward_pass.kernels = Kernels(plain=True)
    assert_alike(found, step(module, batch), rel=1e-5)


def test_a_model_that_takes_no_position_ids_keeps_its_padding(built, monkeypatch, caplog):
    data, module = built("model=tiny_llama", "peft=none", *[o for o in DATA if not o.startswith("peft")])
    batch = training_batch([[row] for row in uneven(data)], data.pad_id)
    inner = module.model.forward
    monkeypatch.setattr(
        module.model,
        "forward",
        lambda input_ids, attention_mask, use_cache: inner(input_ids, attention_mask, use_cache=use_cache),
    )
    with caplog.at_level("INFO"):
        found = step(module.train(), batch)
    assert module.forward_pass.kernels.packing_is_equivalent is False
    assert "padding is kept: the model cannot run unpadded sequences" in caplog.text
    module.forward_pass.kernels = Kernels(plain=True)
    assert_alike(found, step(module, batch), rel=1e-5)


@pytest.mark.parametrize("peft", ["lora", "dora"])
@pytest.mark.parametrize("model", ["tiny_t5", "tiny_llama"])
def test_a_frozen_base_in_bfloat16_leaves_what_is_trained_in_float32(model, peft, built):
    data, module = built(f"model={model}", f"peft={peft}", *DATA, "model.dtype=bfloat16", "model.attention=by_length")
    _, plain = built(f"model={model}", f"peft={peft}", *DATA)
    batch = training_batch([[row] for row in data.encoded["train"][:5]], data.pad_id)
    kinds = (
        {p.dtype for p in module.parameters() if p.requires_grad},
        {p.dtype for p in module.parameters() if not p.requires_grad},
    )
    assert kinds == ({torch.float32}, {torch.bfloat16})
    assert_alike(step(module.train(), batch), step(plain.train(), batch), rel=0.05)


def test_a_model_that_changes_its_logits_after_the_head_is_computed_with_them(built):
    data, module = built("model=tiny_llama", "peft=none", *[o for o in DATA if not o.startswith("peft")])
    module.train()
    batch = training_batch([[row] for row in data.encoded["train"][:3]], data.pad_id)
    uncapped, inner = step(module, batch)[0], module.model.forward

    def capped(*args, **kwargs):
        outputs = inner(*args, **kwargs)
        outputs.logits = 0.1 * torch.tanh(outputs.logits / 0.1)
        return outputs

    module.model.forward, module.forward_pass.kernels.head_is_last = capped, None
    found = step(module, batch)
    assert module.forward_pass.kernels.head_is_last is False
    module.forward_pass.kernels = Kernels(plain=True)
    assert_alike(found, step(module, batch), rel=1e-5)
    assert found[0] != pytest.approx(uncapped, rel=1e-3)
