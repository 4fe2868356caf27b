"""LoRA that keeps its input in bfloat16: peft's own losses and gradients to the last bit, from less memory."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from llmft.models.peft.lora_recompute import LoraARecompute, recompute_lora_inputs

NUMBERS: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


def adapted(dtype: torch.dtype = torch.bfloat16, **options: Any) -> Any:
    """The same model each time, with B matrices that are not zero."""
    torch.manual_seed(0)
    config = LlamaConfig(**NUMBERS, num_attention_heads=4, num_key_value_heads=2)
    base: Any = LlamaForCausalLM(config)
    base.to(dtype)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    model: Any = get_peft_model(base, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", **options))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    return model.train()


def trained(model: Any, *, autocast: bool = False) -> tuple[dict[str, torch.Tensor], int]:
    """Loss and gradients, and the bytes that are kept for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(1)
    ids = torch.randint(0, 50, (3, 20))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), torch.autocast("cpu", enabled=autocast):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"loss": loss.detach(), **found}, sum(kept.values())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_same_bits_from_less(dropout, autocast):
    theirs, much = trained(adapted(lora_dropout=dropout), autocast=autocast)
    model = adapted(lora_dropout=dropout)
    recompute_lora_inputs(model)
    ours, less = trained(model, autocast=autocast)
    assert len(ours) == 1 + 2 * 2 * 4
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert less < (0.95 if autocast else 0.9) * much


def test_answers_and_saved_weights_are_the_same():
    """No dropout outside of training; names, and what is left when the adapter is taken off, are peft's."""
    plain, narrow = adapted(lora_dropout=0.3).eval(), adapted(lora_dropout=0.3).eval()
    recompute_lora_inputs(narrow)
    ids = torch.arange(10)[None]
    assert torch.equal(plain(ids).logits, narrow(ids).logits)
    assert plain.state_dict().keys() == narrow.state_dict().keys()
    with narrow.disable_adapter(), plain.disable_adapter():
        assert torch.equal(plain(ids).logits, narrow(ids).logits)
    merged = [model.merge_and_unload().state_dict() for model in (plain, narrow)]
    assert all(torch.equal(weight, merged[1][name]) for name, weight in merged[0].items())


def test_all_left_out_is_zero_and_not_nan():
    """As of torch's own dropout."""
    model = adapted(lora_dropout=0.3)
    recompute_lora_inputs(model)
    for layer in model.modules():
        if isinstance(layer, LoraARecompute):
            layer.dropout = 1.0
            assert not layer(torch.ones(1, 2, 32, dtype=torch.bfloat16)).any()


@pytest.mark.parametrize("options", [{"dtype": torch.float32}, {"use_dora": True}])
def test_others_stay_as_they_are(options):
    model = adapted(**options)
    recompute_lora_inputs(model)
    assert not any(isinstance(module, LoraARecompute) for module in model.modules())
