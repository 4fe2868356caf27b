"""Packing under the attention kernels of a CUDA device, which of them run, and a compiled module."""

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.utils.device import to_device
from tests.guarantees.test_packing_changes_nothing import packed

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


@pytest.mark.cuda_only
@pytest.mark.parametrize("model", ["tiny_gpt2", "tiny_llama", "tiny_gemma"])
def test_flash_attention_computes_what_sdpa_does(model, built):
    """Packed and single rows in bfloat16, with gradients; tiny_gemma's window is shorter than its rows."""
    overrides = (f"model={model}", "peft=none", "data=alpaca", "data.path=sample", "data.limit=20")
    given = ("trainer.accelerator=gpu", "trainer.precision=bf16-mixed")
    data, module = built(*overrides, *given, "model.attention=flash")
    module.cuda().eval()
    lines = packed(data)
    gradients = []
    for flash, batch in ((True, lines), (True, [[row] for line in lines for row in line]), (False, lines)):
        module.forward_pass.kernels.flash = module.forward_pass.kernels.varlen = flash
        module.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            total, _ = module.forward_pass.loss_sum(
                {
                    k: v.cuda() if isinstance(v, torch.Tensor) else v
                    for k, v in training_batch(batch, data.pad_id).items()
                }
            )
        total.backward()
        gradients.append(torch.cat([p.grad.flatten().float() for p in module.parameters() if p.grad is not None]))
        assert module.forward_pass.kernels.packing_is_equivalent
    for found in gradients[:2]:
        assert float((found - gradients[2]).norm() / gradients[2].norm()) < 3e-2


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
def test_a_compiled_backbone_computes_the_same(model, built, device):
    data, module = built(f"model={model}", "peft=none", "data=alpaca", "data.path=sample", "data.limit=20")
    module.to(device).eval()
    rows = [[row] for row in data.encoded["train"][:4]]
    whole = loss_of(module, rows, data.pad_id)
    module.model.compile()
    assert loss_of(module, rows, data.pad_id) == pytest.approx(whole, rel=1e-4)


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
