"""A base in bfloat16 computes in float32 on request: its own weights, in place, and back to the bit."""

from types import SimpleNamespace

import pytest
import torch

from llmft.models import dtype as dtypes
from llmft.models.dtype import answering_precision, autocast, computing_in, dtype_name, to_float32, untrained_precision
from llmft.models.peft.lora_recompute import recompute_lora_inputs
from tests.unit.models.peft.test_lora_recompute import adapted


@pytest.fixture
def model():
    found = adapted()
    recompute_lora_inputs(found)
    return found.eval()


def test_names():
    def named(**settings):
        config = SimpleNamespace(quantization_config=SimpleNamespace(load_in_8bit=False, **settings))
        return dtype_name(SimpleNamespace(config=config))

    assert named(bnb_4bit_compute_dtype=torch.float32, bnb_4bit_quant_type="nf4") == "float32, base in nf4"
    assert named(bnb_4bit_compute_dtype=torch.bfloat16, bnb_4bit_quant_type="fp4") == "bfloat16, base in fp4"
    int8 = SimpleNamespace(load_in_8bit=True)
    for rest in (torch.float32, torch.bfloat16):  # the weights that are not quantized
        embeddings = SimpleNamespace(weight=torch.zeros(2, dtype=rest))
        found = SimpleNamespace(
            config=SimpleNamespace(quantization_config=int8), get_input_embeddings=lambda held=embeddings: held
        )
        assert dtype_name(found) == f"{str(rest).removeprefix('torch.')}, base in int8"


def test_a_lora_model_is_named_after_its_base(model):
    assert (dtype_name(model), dtype_name(model, "float32")) == ("bfloat16", "float32")
    assert dtype_name(adapted(torch.float32)) == "float32"


@pytest.mark.parametrize(
    ("device", "precision", "dtype", "units", "expected"),
    [
        ("cuda", "bf16-mixed", "auto", "yes", "bf16-mixed"),
        ("cuda", "16-mixed", "auto", None, "16-mixed"),
        ("cuda", "bf16-mixed", "auto", None, "32-true"),  # it was trained on another GPU
        ("cuda", "bf16-mixed", "float32", "yes", "32-true"),
        ("cuda", "32-true", "auto", "yes", "32-true"),
        ("cpu", "bf16-mixed", "auto", "yes", "32-true"),
    ],
)
def test_answers_are_computed_as_the_training_was_on_a_gpu(monkeypatch, device, precision, dtype, units, expected):
    monkeypatch.setattr(dtypes, "bfloat16_units", lambda **_: units)
    assert answering_precision(torch.device(device), precision, dtype) == expected


def test_a_model_that_was_not_trained_answers_as_its_training_would_compute(monkeypatch):
    assert untrained_precision("auto") == "32-true"
    monkeypatch.setattr(dtypes, "default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(dtypes, "bfloat16_units", lambda **_: "yes")
    assert [untrained_precision(dtype) for dtype in ("auto", "float32", "bfloat16")] == [
        "bf16-mixed",
        "32-true",
        "32-true",
    ]


def test_autocast_is_named_beside_the_weights(model):
    assert dtype_name(model, precision="bf16-mixed") == "bfloat16, bf16-mixed"
    with autocast(torch.device("cpu"), "bf16-mixed"):
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), "32-true"):
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.float32


def test_in_float32_it_is_the_model_of_the_same_weights_in_float32_and_afterwards_nothing_has_changed(model):
    ids = torch.arange(40).view(2, 20)
    plain = adapted().eval()
    plain.base_model.model.float()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        rounded = model(input_ids=ids).logits
        with computing_in(model, "float32"):
            found = model(input_ids=ids).logits
            alone = model(input_ids=ids[:1]).logits
        expected = plain(input_ids=ids).logits
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    torch.testing.assert_close(alone, found[:1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(rounded.float(), expected, rtol=1e-4, atol=1e-4)
    after = dict(model.named_parameters())
    assert all(
        torch.equal(after[name], weight) and after[name].dtype == weight.dtype for name, weight in before.items()
    )


def test_there_is_no_second_copy(model):
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters() if not weight.requires_grad)
    with computing_in(model, "float32"):
        larger = sum(
            weight.numel() * weight.element_size() for weight in model.parameters() if not weight.requires_grad
        )
        assert larger == 2 * size
        with computing_in(model, "float32"):  # of answers within an evaluation
            pass
        assert dtype_name(model) == "float32"
    with computing_in(model, "auto"):
        assert dtype_name(model) == "bfloat16"
    assert to_float32(adapted(torch.float32)) == []
