"""Bases in 4 and 8 bits: an evaluation changes nothing of what training computes, and the numbers are those of bitsandbytes."""

from typing import Any

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

from llmft.data.batching.collate import training_batch
from llmft.models.backbone.quantization import numel
from llmft.models.peft import trainable

RUN = (
    "data=alpaca",
    "data.path=sample",
    "data.limit=8",
    "peft.targets=all-linear",
    "peft.dropout=0",
    "model.dropout=0",
)
CASES = [
    ("tiny_llama", "qlora"),
    ("tiny_llama", "lora_8bit"),
    ("tiny_t5", "qlora"),
    pytest.param("tiny_llama", "fp4", marks=pytest.mark.slow),
    pytest.param("tiny_gemma", "fp4", marks=pytest.mark.slow),
    ("tiny_gpt2", "qlora"),
    pytest.param("tiny_t5", "lora_8bit", marks=pytest.mark.slow),
    pytest.param("tiny_gpt2", "lora_8bit", marks=pytest.mark.slow),
    pytest.param("tiny_gemma", "lora_8bit", marks=pytest.mark.slow),
]


def batch_of(data, rows):
    return training_batch([[row] for row in data.encoded["train"][:rows]], data.pad_id)


def gradients(module, batch):
    module.train()
    module.zero_grad()
    total, _ = module.forward_pass.loss_sum(batch)
    total.backward()
    return float(total.detach()), {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def evaluated(module, batch):
    module.eval()
    with torch.inference_mode():
        return float(module.forward_pass.loss_sum(batch)[0])


@pytest.mark.parametrize(("model", "peft"), CASES)
def test_an_evaluation_cuts_no_gradient_off(model, peft, built, monkeypatch):
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)  # the hazard, on every CPU
    data, module = built(f"model={model}", f"peft={peft}", *RUN)
    batch = batch_of(data, 4)
    loss, before = gradients(module, batch)
    assert evaluated(module, batch) == pytest.approx(loss, rel=1e-6)  # no other kernel, no other precision
    again, after = gradients(module, batch)
    assert again == loss
    assert before.keys() == after.keys() == module.trainable_names()
    for name, gradient in before.items():
        assert torch.equal(after[name], gradient), name
    matrices = [name for name in before if "lora_B" in name]
    assert len(matrices) == len(before) / 2
    assert all(after[name].any() for name in matrices)
    assert not any(m.support_avx512bf16_for_cpu for m in module.modules() if isinstance(m, Linear4bit))
    assert not any(type(m) is Linear8bitLt for m in module.modules())


@pytest.mark.parametrize("peft", [pytest.param("qlora", marks=pytest.mark.slow), "lora_8bit"])
def test_the_loss_of_an_example_does_not_depend_on_its_batch(peft, built):
    data, module = built("model=tiny_llama", f"peft={peft}", *RUN)
    rows = data.encoded["train"][:4]
    single = sum(evaluated(module, training_batch([[row]], data.pad_id)) for row in rows)
    assert evaluated(module, training_batch([[row] for row in rows], data.pad_id)) == pytest.approx(single, rel=1e-5)


@pytest.mark.parametrize(("peft", "kind"), [("qlora", "nf4"), pytest.param("fp4", "fp4", marks=pytest.mark.slow)])
def test_what_is_asked_for_is_what_is_held(peft, kind, built):
    _, full = built("model=tiny_llama", "peft=lora", *RUN)
    _, module = built("model=tiny_llama", f"peft={peft}", *RUN)
    layers = {n.replace(".base_layer", ""): m for n, m in module.named_modules() if isinstance(m, Linear4bit)}
    expected = {n: m.weight for n, m in full.named_modules() if n.endswith("base_layer")}
    assert {n.replace(".base_layer", "") for n in expected} == layers.keys()
    for name, weight in expected.items():
        layer: Any = layers[name.replace(".base_layer", "")]
        state = layer.weight.quant_state
        assert (state.quant_type, state.nested, layer.compute_dtype) == (kind, True, torch.float32)
        packed, made = functional.quantize_4bit(weight.data, quant_type=kind, compress_statistics=True)
        assert torch.equal(layer.weight.data, packed)
        torch.testing.assert_close(
            functional.dequantize_4bit(layer.weight.data, state), functional.dequantize_4bit(packed, made)
        )


def test_settings_reach_bitsandbytes(built):
    _, module = built("model=tiny_llama", "peft=qlora", "peft.double_quant=false", "peft.compute_dtype=bfloat16", *RUN)
    layer: Any = next(m for m in module.modules() if isinstance(m, Linear4bit))
    assert not layer.weight.quant_state.nested
    assert layer.compute_dtype == torch.bfloat16


@pytest.mark.parametrize("peft", ["qlora", pytest.param("lora_8bit", marks=pytest.mark.slow)])
def test_parameters_are_counted_as_weights_and_not_as_bytes(peft, built):
    expected = trainable.parameter_counts(built("model=tiny_llama", "peft=lora", *RUN)[1].model)
    _, module = built("model=tiny_llama", f"peft={peft}", *RUN)
    assert trainable.parameter_counts(module.model) == expected
    held = sum(p.numel() * p.element_size() for p in module.model.parameters())
    assert held < 4 * sum(map(numel, module.model.parameters()))


@pytest.mark.parametrize("peft", ["qlora", pytest.param("lora_8bit", marks=pytest.mark.slow)])
def test_a_checkpoint_holds_only_the_adapter(peft, built):
    _, module = built("model=tiny_llama", f"peft={peft}", *RUN)
    checkpoint = {"state_dict": module.state_dict()}
    assert any("base_layer" in name for name in checkpoint["state_dict"])
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["state_dict"].keys() == module.trainable_names()
    assert all("lora_" in name and value.dtype == torch.float32 for name, value in checkpoint["state_dict"].items())
    module.on_load_checkpoint(checkpoint)
    for change in ({"model.unknown": torch.zeros(1)}, None):
        other = dict(checkpoint["state_dict"]) | (change or {})
        if not change:
            other.pop(next(iter(other)))
        with pytest.raises(Exception, match="checkpoint does not fit this model and peft: missing"):
            module.on_load_checkpoint({"state_dict": other})


@pytest.mark.slow
def test_packing_changes_nothing_on_a_quantized_base(built):
    for model in ("tiny_llama", "tiny_t5"):
        data, module = built(f"model={model}", "peft=qlora", "data.batching=packed", "data.batch_size=1", *RUN)
        assert module.forward_pass.check_packing(data.encoded["train"][:3], data.pad_id) < 1e-4
