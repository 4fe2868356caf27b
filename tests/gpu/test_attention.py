"""Packing under the attention kernels of a CUDA device, which of them run, and compiled layers."""

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.utils.device import to_device
from tests.guarantees.test_packing_changes_nothing import packed
from tests.support import flex_kernel, varlen_kernel
from tests.unit.models.attention.test_flash import CAUSAL, forward_of

pytestmark = pytest.mark.gpu
MODELS = ("tiny_t5", "tiny_gpt2", "tiny_llama", "tiny_gemma")


def loss_of(module, lines, pad_id):
    total, tokens = module.forward_pass.loss_sum(to_device(training_batch(lines, pad_id), module.forward_pass.device))
    return float(total.detach()) / int(tokens)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model", MODELS)
def test_packed_examples_are_trained_as_single_ones(model, attention, built, device, record_property):
    data, module = built(
        f"model={model}",
        "peft=none",
        f"model.attention={attention}",
        "data=alpaca",
        "data.path=sample",
        "data.limit=20",
    )
    module.to(device).eval()
    sequences = packed(data)
    single = [[row] for sequence in sequences for row in sequence]
    found, expected = (loss_of(module, rows, data.pad_id) for rows in (sequences, single))
    record_property("difference", f"{abs(found / expected - 1):.1e}")
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("attention", "precision", "tolerance"),
    [("flash", "bf16-mixed", 3e-2), ("flex", "bf16-mixed", 3e-2), ("flex", "32-true", 1e-4)],
)
@pytest.mark.parametrize("model", ["tiny_gpt2", "tiny_llama", "tiny_gemma"])
def test_attention_by_lengths_computes_what_sdpa_does(
    model, attention, precision, tolerance, built, device, monkeypatch, record_property
):
    """Packed and single rows, with gradients; tiny_gemma's window is shorter than its rows."""
    if device.type == "cpu":
        varlen_kernel.install(monkeypatch, "torch") if attention == "flash" else flex_kernel.install(monkeypatch)
    overrides = (f"model={model}", "model.dropout=0", "peft=none", "data=alpaca", "data.path=sample", "data.limit=20")
    given = ("trainer.accelerator=gpu", f"trainer.precision={precision}", f"model.attention={attention}")
    data, module = built(*overrides, *given)
    module.to(device).eval()
    kernels, lines = module.forward_pass.kernels, packed(data)
    gradients = []
    for by_lengths, batch in ((True, lines), (True, [[row] for line in lines for row in line]), (False, lines)):
        kernels.varlen = by_lengths
        module.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            total, _ = module.forward_pass.loss_sum(to_device(training_batch(batch, data.pad_id), device))
        total.backward()
        gradients.append(torch.cat([p.grad.flatten().float() for p in module.parameters() if p.grad is not None]))
        assert kernels.packing_is_equivalent
    differences = [float((found - gradients[2]).norm() / gradients[2].norm()) for found in gradients[:2]]
    record_property("difference", f"{max(differences):.1e}")
    assert max(differences) < tolerance


def test_flex_attention_computes_soft_caps_and_windows(device, monkeypatch, record_property):
    """Gemma 2, in float32, against its eager attention."""
    if device.type == "cpu":
        flex_kernel.install(monkeypatch)
    found, expected = (forward_of("Gemma2", **kernels) for kernels in ({"varlen": True, "flex": True}, {"plain": True}))
    rows, gradients = [[example] for example in CAUSAL], []
    for forward in (found, expected):
        forward.model.to(device)
        forward.loss_sum(to_device(training_batch(rows, 1), device))[0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in forward.model.parameters() if p.grad is not None]))
    assert found.kernels.packing_is_equivalent
    difference = float((gradients[0] - gradients[1]).norm() / gradients[1].norm())
    record_property("difference", f"{difference:.1e}")
    assert difference < 1e-4


@pytest.mark.cuda_only
def test_flex_attention_is_compiled_for_all_lengths(built, device, record_property):
    """Static for the first batch and dynamic from the second on, with gradients and without; and for its comparison."""
    data, module = built(
        "model=tiny_llama",
        "peft=none",
        "data=alpaca",
        "data.path=sample",
        "data.limit=40",
        "trainer.accelerator=gpu",
        "trainer.precision=32-true",
        "model.attention=flex",
    )
    module.to(device)
    torch._dynamo.reset()
    counted, graphs = torch._dynamo.utils.counters["stats"], []
    for number in (2, 5, 9, 3, 20, 7):
        rows = to_device(training_batch([[row] for row in data.encoded["train"][:number]], data.pad_id), device)
        module.forward_pass.loss_sum(rows)[0].backward()
        with torch.no_grad():
            module.forward_pass.loss_sum(rows)
        graphs.append(counted["unique_graphs"])
    record_property("graphs", str(graphs))
    assert graphs[-1] == graphs[2]


@pytest.mark.parametrize("model", MODELS)
def test_half_precision_computes_nearly_the_same(model, built, device):
    data, module = built(f"model={model}", "peft=none", "data=alpaca", "data.path=sample", "data.limit=20")
    module.to(device).eval()
    rows = [[row] for row in data.encoded["train"][:4]]
    whole = loss_of(module, rows, data.pad_id)
    with torch.autocast(device.type, torch.bfloat16):
        assert loss_of(module, rows, data.pad_id) == pytest.approx(whole, rel=2e-2)


@pytest.mark.cuda_only  # a CPU takes minutes
@pytest.mark.parametrize("model", ["tiny_t5", "tiny_llama"])
def test_compiled_layers_compute_the_same(model, built, device, record_property):
    """With ``model.compile``; the first batch compares outputs and gradients of each layer."""
    given = (f"model={model}", "model.compile=true", "peft=none", "data=alpaca", "data.path=sample", "data.limit=20")
    data, module = built(*given)
    module.to(device).train()
    rows = [[row] for row in data.encoded["train"][:6]]
    with torch.no_grad():  # not compiled
        expected = [loss_of(module, batch, data.pad_id) for batch in (rows[:4], rows[4:])]
    found = [loss_of(module, batch, data.pad_id) for batch in (rows[:4], rows[4:])]
    record_property("graphs", torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert module.forward_pass.kernels.compiled_is_equivalent
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.cuda_only
@pytest.mark.parametrize("grouped", [False, True], ids=["mha", "gqa"])
@pytest.mark.parametrize("mask", ["causal", "4d"])
def test_which_kernels_sdpa_can_take(mask, grouped, record_property):
    """A 4D mask rules flash out, which is why packed rows need varlen attention."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    options = {"device": "cuda", "dtype": torch.bfloat16}
    query, key = torch.randn(2, 8, 512, 64, **options), torch.randn(2, 2 if grouped else 8, 512, 64, **options)
    block = torch.ones(2, 1, 512, 512, dtype=torch.bool, device="cuda").tril() if mask == "4d" else None
    can = []
    for kernel in (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.MATH,
    ):
        try:
            with sdpa_kernel(kernel):
                scaled_dot_product_attention(
                    query, key, key, attn_mask=block, is_causal=block is None, enable_gqa=grouped
                )
        except RuntimeError:
            continue
        can.append(kernel.name.removesuffix("_ATTENTION").lower())
    record_property("kernels", ", ".join(can))
    assert ("flash" in can) is (mask == "causal")
