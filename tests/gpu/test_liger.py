"""Liger's own kernels on a CUDA device: loss and gradients are those of the modules that they stand for."""

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.utils.device import to_device

pytestmark = pytest.mark.gpu


@pytest.mark.cuda_only  # Triton compiles for GPUs
@pytest.mark.parametrize("half", [True, False], ids=["bf16-mixed", "float32"])
@pytest.mark.parametrize("model", ["tiny_llama", "tiny_gemma", "tiny_t5"])
def test_liger_computes_what_the_modules_do(model, half, built, device, record_property):
    pytest.importorskip("liger_kernel")
    data, module = built(f"model={model}", "peft=none", "data=alpaca", "data.path=sample", "data.limit=20")
    module.to(device).eval()
    forward = module.forward_pass
    batch = to_device(training_batch([[row] for row in data.encoded["train"][:4]], data.pad_id), device)
    gradients = []
    for forward.kernels.liger in (False, True):
        module.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            total, _ = forward.loss_sum(batch)
        total.backward()
        gradients.append(torch.cat([p.grad.flatten().float() for p in module.parameters() if p.grad is not None]))
    assert forward.kernels.liger_is_equivalent
    difference = float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
    record_property("difference", f"{difference:.1e}")
    assert difference < (3e-2 if half else 1e-4)
