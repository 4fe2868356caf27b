"""Which modules of the last layer leave out positions without a loss, and when."""

from typing import Any

import pytest
import torch
import transformers

from llmft.data.batching.collate import training_batch
from llmft.models.attention.kernels import Kernels
from llmft.models.causal import CausalForward
from llmft.models.last_layer import LastLayer
from llmft.models.loss import Positions
from tests.unit.models.test_forward import EXAMPLES, tiny_llama

FEW = Positions.of(torch.tensor([[False, False, True, True, False]]))
SIZE: dict[str, Any] = {"vocab_size": 11, "num_hidden_layers": 2, "num_attention_heads": 2}


def gpt2(**more):
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=16, **SIZE, **more))


def mixtral():
    numbers: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_key_value_heads": 1,
        "num_local_experts": 2,
    }
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**SIZE, **numbers))


def opt():  # its MLP is no module
    return transformers.OPTForCausalLM(transformers.OPTConfig(hidden_size=16, ffn_dim=24, **SIZE))


def t5():
    numbers: dict[str, Any] = {"vocab_size": 11, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**numbers))


def names(model, modules):
    return [name for name, module in model.named_modules() if any(module is each for each in modules)]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (tiny_llama, ["model.layers.0.self_attn.o_proj", "model.layers.0.mlp"]),
        (gpt2, ["transformer.h.1.attn.c_proj", "transformer.h.1.mlp"]),
        (mixtral, ["model.layers.1.self_attn.o_proj"]),
        (opt, ["model.decoder.layers.1.self_attn.out_proj"]),
        (t5, []),
    ],
)
def test_modules_that_work_token_by_token(make, expected):
    model = make().eval()
    assert names(model, LastLayer(model).modules(FEW)) == expected


def test_what_drops_out_is_left_out_in_eval_mode_only():
    model = gpt2(resid_pdrop=0.1).train()
    layer = LastLayer(model)
    assert names(model, layer.modules(FEW)) == ["transformer.h.1.attn.c_proj"]
    model.eval()
    assert len(layer.modules(FEW)) == 2


def test_nothing_is_left_out_where_most_positions_have_a_loss_or_a_backward_pass_computes_it_again():
    model = tiny_llama()
    layer = LastLayer(model)
    assert layer.modules(Positions.of(torch.tensor([[True, True, True, True, False]])))
    assert not layer.modules(Positions.of(torch.tensor([[True] * 9 + [False]])))
    assert not layer.modules(Positions.of(torch.tensor([[False] * 5])))
    model.gradient_checkpointing_enable()
    assert not layer.modules(FEW)
    with torch.no_grad():
        assert layer.modules(FEW)


def test_a_model_whose_last_layer_mixes_positions_computes_all(monkeypatch):
    model = tiny_llama().eval()
    mlp: Any = model.model.layers[0].mlp
    real = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda x: real(x) + x.mean(1, keepdim=True))
    batch = training_batch([EXAMPLES[1:]], pad_id=0)
    plain, _ = CausalForward(model, Kernels(plain=True)).loss_sum(batch)
    forward = CausalForward(model)
    total, _ = forward.loss_sum(batch)
    assert forward.kernels.last_layer_is_equivalent is False
    torch.testing.assert_close(total, plain)
