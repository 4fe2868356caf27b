"""LoRA under autocast multiplies and drops out in its dtype; without autocast it is peft's to the last bit."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llmft.models.peft.lora_autocast import LoraDropout, follow_autocast
from llmft.models.peft.lora_recompute import LoraARecompute, recompute_lora_inputs
from tests.unit.models.peft.test_lora_recompute import adapted, trained

WIDTH = 32  # of the inputs


class Seen(TorchDispatchMode):
    """Counts matrix products by dtype, and tensors as wide as an input that are made in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.copies = Counter[torch.dtype](), Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "bmm"):
            self.products[out.dtype] += 1
        elif isinstance(out, torch.Tensor) and out.dtype == torch.float32 and out.shape == (2, 5, WIDTH):
            self.copies[name] += 1
        return out


def layer_of(dtype: torch.dtype, *, ours: bool) -> Any:
    """The output projection of the first block; its other layers have other widths."""
    model = adapted(dtype, lora_dropout=0.3)
    if ours:
        recompute_lora_inputs(model)
        follow_autocast(model)
    return model.base_model.model.model.layers[0].self_attn.o_proj


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ours", [True, False])
def test_products_and_dropout_are_in_bfloat16_without_a_copy_in_float32(dtype, ours):
    layer, x = layer_of(dtype, ours=ours), torch.randn(2, 5, WIDTH).bfloat16().requires_grad_()
    with Seen() as seen:
        with torch.autocast("cpu"):
            out = layer(x)
        out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert set(seen.products) == {torch.bfloat16}
    assert bool(seen.copies) is not ours  # peft's has them: dropout in float32, forward and backward
    assert x.grad is not None


def test_without_autocast_it_is_pefts_to_the_last_bit():
    theirs, _ = trained(adapted(torch.float32, lora_dropout=0.3))
    model = adapted(torch.float32, lora_dropout=0.3)
    follow_autocast(model)
    assert any(isinstance(module, LoraDropout) for module in model.modules())
    ours, _ = trained(model)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert model.state_dict().keys() == adapted(torch.float32).state_dict().keys()


def test_dora_and_layers_that_recompute_stay_as_they_are():
    dora, half = adapted(torch.float32, use_dora=True), adapted()
    recompute_lora_inputs(half)
    for model in (dora, half):
        follow_autocast(model)
        assert not any(isinstance(module, LoraDropout) for module in model.modules())
    assert any(isinstance(module, LoraARecompute) for module in half.modules())
