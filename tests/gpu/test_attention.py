"""Packing under the attention kernels of a CUDA device, and a compiled module. Written without one; docs/gpu.md says whether they were run."""

import pytest
import torch

from llmft.data.batching.collate import training_batch
from tests.guarantees.test_packing_changes_nothing import packed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
MODELS = ("tiny_t5", "tiny_gpt2", "tiny_llama", "tiny_gemma")


def loss_of(module, lines, pad_id):
    batch = training_batch(lines, pad_id)
    total, tokens = module.forward_pass.loss_sum(
        {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    )
    return float(total.detach()) / int(tokens)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model", MODELS)
def test_rows_that_share_a_line_are_trained_as_if_alone(model, attention, built):
    data, module = built(
        f"model={model}",
        "peft=none",
        f"model.attention={attention}",
        "data=alpaca",
        "data.path=sample",
        "data.limit=20",
    )
    module.cuda().eval()
    lines = packed(data)
    alone = [[row] for line in lines for row in line]
    assert loss_of(module, lines, data.pad_id) == pytest.approx(loss_of(module, alone, data.pad_id), rel=1e-4)


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
def test_half_precision_computes_nearly_the_same(model, built):
    data, module = built(f"model={model}", "peft=none", "data=alpaca", "data.path=sample", "data.limit=20")
    module.cuda().eval()
    rows = [[row] for row in data.encoded["train"][:4]]
    whole = loss_of(module, rows, data.pad_id)
    with torch.autocast("cuda", torch.bfloat16):
        assert loss_of(module, rows, data.pad_id) == pytest.approx(whole, rel=2e-2)


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_llama"])
def test_a_compiled_backbone_computes_the_same(model, built):
    data, module = built(f"model={model}", "peft=none", "data=alpaca", "data.path=sample", "data.limit=20")
    module.cuda().eval()
    rows = [[row] for row in data.encoded["train"][:4]]
    whole = loss_of(module, rows, data.pad_id)
    module.model.compile()
    assert loss_of(module, rows, data.pad_id) == pytest.approx(whole, rel=1e-4)
