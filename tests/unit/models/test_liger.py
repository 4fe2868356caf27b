"""Liger's kernels, with functions in plain torch in their place: what is replaced, that it computes the same, and where it runs."""

import copy
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn import functional

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import IGNORED, EncodedExample
from llmft.models import liger
from llmft.models.attention.kernels import Kernels
from llmft.models.causal import CausalForward

EXAMPLES = [EncodedExample([5, 6, 7], [IGNORED, 6, 7], 1, 2, 2), EncodedExample([8, 9, 3, 4, 2], [IGNORED, 9, 3, 4, 2], 1, 4, 4)]  # fmt: skip
SIZE = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


class Ops(ModuleType):
    """``liger_kernel.ops``: the arguments of each call, and the same numbers in plain torch (times ``error``)."""

    def __init__(self):
        super().__init__("liger_kernel.ops")
        self.calls, self.error = [], 1.0
        for name in ("LigerRMSNormFunction", "LigerSiLUMulFunction", "LigerGELUMulFunction"):
            setattr(self, name, type(name, (), {"apply": lambda *args, name=name: self.apply(name, *args)}))

    def apply(self, name, *args):
        self.calls.append(name)
        if name != "LigerRMSNormFunction":
            gate, up = args
            assert gate.dtype == up.dtype
            activated = functional.silu(gate) if "SiLU" in name else functional.gelu(gate, approximate="tanh")
            return activated * up * self.error
        x, weight, eps, offset, casting, in_place = args
        assert (offset, casting) in ((0.0, "llama"), (1.0, "gemma"))
        assert eps == 1e-6
        assert not in_place
        wide = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)
        weight = weight.float() + offset
        return ((wide * weight).to(x.dtype) if casting == "gemma" else (wide.to(x.dtype) * weight).to(x.dtype)) * self.error  # fmt: skip


@pytest.fixture
def ops(monkeypatch):
    package, functions = ModuleType("liger_kernel"), Ops()
    monkeypatch.setattr(package, "ops", functions, raising=False)
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.ops", functions)
    monkeypatch.setattr(liger, "DEVICES", ("cpu",))
    return functions


def made(kind, **more) -> Any:
    import transformers

    torch.manual_seed(0)
    heads = {"num_key_value_heads": 1, "head_dim": 8, "initializer_range": 0.3, "rms_norm_eps": 1e-6}
    if kind == "GPT2":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=11, n_embd=16, n_layer=1, n_head=2))
    config = getattr(transformers, f"{kind}Config")(**SIZE, **heads, **more)
    return getattr(transformers, f"{kind}ForCausalLM")(config)


def step(forward):
    forward.model.zero_grad()
    total, _ = forward.loss_sum(training_batch([[example] for example in EXAMPLES], pad_id=0))
    total.backward()
    return total.detach(), {name: p.grad for name, p in forward.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("kind", "function", "found"),
    [
        ("Llama", "LigerSiLUMulFunction", {"RMSNorm": 5, "SwiGLU": 2}),
        ("Qwen3", "LigerSiLUMulFunction", {"RMSNorm": 9, "SwiGLU": 2}),
        ("Gemma", "LigerGELUMulFunction", {"GeGLU": 2, "RMSNorm": 5}),
    ],
)
@pytest.mark.parametrize("checkpointed", [False, True], ids=["stored", "recomputed"])
def test_loss_and_gradients_are_those_of_the_modules(kind, function, found, checkpointed, ops, caplog):
    caplog.set_level("INFO")
    model = made(kind)
    expected = step(CausalForward(made(kind), Kernels(plain=True)))
    if checkpointed:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    forward, names = CausalForward(model.train(), Kernels(liger=True)), list(model.state_dict())
    step(forward)  # compares, and installs
    ops.calls.clear()
    loss, gradients = step(forward)
    times = 2 if checkpointed else 1
    assert (
        ops.calls.count("LigerRMSNormFunction") == (found["RMSNorm"] - 1) * times + 1
    )  # the last norm is outside layers
    assert ops.calls.count(function) == 2 * times
    torch.testing.assert_close((loss, gradients), expected, rtol=1e-5, atol=1e-5)
    assert list(model.state_dict()) == names
    line = ", ".join(f"{name} ({number} modules)" for name, number in found.items())
    assert [r.message for r in caplog.records if "Liger" in r.message] == [f"Liger kernels: {line}, in training steps"]


def test_they_run_in_the_training_steps_of_that_model_only(ops):
    model, other = made("Llama"), made("Llama")
    classes = {type(module): type(module).forward for module in model.modules()}
    forward = CausalForward(model, Kernels(liger=True))
    step(forward)
    ops.calls.clear()
    batch = training_batch([[example] for example in EXAMPLES], pad_id=0)
    with torch.no_grad():
        forward.loss_sum(batch)
        model.generate(batch["input_ids"], max_new_tokens=2, do_sample=False)
    step(CausalForward(other, Kernels()))
    step(CausalForward(made("Llama"), Kernels()))
    assert ops.calls == []
    assert all(kind.forward is own for kind, own in classes.items())


def test_a_copy_of_a_model_computes_with_weights_of_its_own(ops):
    model = made("Llama")
    liger.install(model)
    copied = copy.deepcopy(model)
    copied.model.norm.weight.data.fill_(3)
    x = torch.randn(1, 2, 16)
    torch.testing.assert_close(copied.model.norm(x), 3 * model.model.norm(x))
    assert ops.calls
    liger.uninstall(copied)
    assert all("forward" not in vars(module) for module in copied.modules())
    assert "forward" in vars(model.model.norm)


def test_layers_with_lora_keep_their_adapters(ops):
    from peft import LoraConfig, get_peft_model

    adapted = LoraConfig(target_modules=["gate_proj", "down_proj"], init_lora_weights=False)
    models = []
    for _ in range(2):
        model = made("Llama")
        torch.manual_seed(1)
        models.append(get_peft_model(model, adapted))
    found, expected = (step(CausalForward(m, Kernels(liger=on))) for m, on in zip(models, (True, False), strict=True))
    assert ops.calls
    assert len(found[1]) == 8
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "more", "error", "said"),
    [
        ("GPT2", {}, 1.0, "off, none of the model's modules is an RMSNorm or a gated MLP that they compute"),
        ("Llama", {}, 1.01, "off, none of the model's modules is"),
        ("Llama", {"hidden_act": "gelu"}, 1.0, "RMSNorm (5 modules), in training steps"),  # exact GELU, Liger's is tanh
    ],
)
def test_what_computes_something_else_is_left_alone(kind, more, error, said, ops, caplog):
    caplog.set_level("INFO")
    ops.error = error
    forward = CausalForward(made(kind, **more), Kernels(liger=True))
    step(forward)
    assert forward.kernels.liger_is_equivalent is ("5 modules" in said)
    assert any("forward" in vars(m) for m in forward.model.modules()) is ("5 modules" in said)
    assert f"Liger kernels: {said}" in caplog.text


def test_other_logits_of_the_first_example_turn_them_off(ops, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(liger, "TOLERANCE", 1.0)
    ops.error = 1.2
    forward = CausalForward(made("Llama"), Kernels(liger=True))
    step(forward)
    ops.calls.clear()
    step(forward)
    assert ops.calls == []
    assert "off, with RMSNorm (5 modules), SwiGLU (2 modules) the logits of the first example differ" in caplog.text


def test_kernels_that_do_not_run_are_off(ops, caplog):
    ops.apply = lambda *_: 1 / 0
    expected = step(CausalForward(made("Llama"), Kernels()))
    forward = CausalForward(made("Llama"), Kernels(liger=True))
    torch.testing.assert_close(step(forward), expected, rtol=0, atol=0)
    assert "Liger kernels: off, they do not run here (division by zero)" in caplog.text
    assert all("forward" not in vars(module) for module in forward.model.modules())


def test_the_random_numbers_of_a_training_are_those_without(ops):
    model = made("Llama").train()
    torch.manual_seed(3)
    expected = torch.get_rng_state()
    liger.install(model)
    assert torch.equal(torch.get_rng_state(), expected)
    assert model.model.norm.training
    assert ops.calls


def test_a_model_on_the_cpu_is_left_alone(ops, monkeypatch):
    monkeypatch.setattr(liger, "DEVICES", ("cuda",))
    assert liger.install(made("Llama")) == {}
    assert ops.calls == []


def test_half_precision_is_that_of_the_modules(ops):
    """Weights in another dtype than the hidden states widen the output of a norm, and Liger's would not."""
    model = made("Llama").bfloat16()
    assert liger.install(model) == {"RMSNorm": 5, "SwiGLU": 2}
    ops.calls.clear()
    norm = model.model.norm
    norm.weight.data = norm.weight.data.float()
    assert norm(torch.randn(1, 2, 16, dtype=torch.bfloat16)).dtype == torch.float32
    assert ops.calls == []
