"""Layers run by torch.compile: what they compute, how many graphs it takes, where they run, and when they are left alone.

Most tests have a function in the place of ``torch.compile``; those that trace graphs count them, and run them uncompiled.
"""

import copy
import sys
from types import ModuleType

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import IGNORED, EncodedExample
from llmft.models import compiled, liger
from llmft.models.attention.kernels import Kernels
from llmft.models.causal import CausalForward
from tests.support import varlen_kernel
from tests.unit.models.attention.test_flash import SEQ2SEQ, forward_of, made
from tests.unit.models.test_liger import Ops


def causal(*sizes):
    """Examples of as many tokens, the last two of which have a loss."""
    ids = [[3 + (n + size) % 8 for n in range(size)] for size in sizes]
    return [[EncodedExample(row, [IGNORED] * (len(row) - 2) + row[-2:], len(row) - 2, 2, 2)] for row in ids]


SHAPES = ((4, 6, 3), (5, 5), (9, 3, 4, 7))


def step(forward, rows):
    forward.model.zero_grad()
    total, tokens = forward.loss_sum(training_batch(rows, pad_id=1))
    total.backward()
    return total.detach(), tokens, {name: p.grad for name, p in forward.model.named_parameters() if p.grad is not None}


@pytest.fixture
def calls(monkeypatch):
    """The layers that ran compiled; a function in the place of torch.compile runs them as they are, and ``error`` times."""

    class Calls(list):
        error = 1.0

    found = Calls()

    def compiler(forward, **_):
        def run(layer, *args, **kwargs):
            found.append(layer)
            return forward(layer, *args, **kwargs) * found.error

        return run

    monkeypatch.setattr(torch, "compile", compiler)
    compiled._compiled.cache_clear()
    yield found
    compiled._compiled.cache_clear()


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that torch.compile makes; they are run operation by operation."""
    found = []
    monkeypatch.setattr(compiled, "BACKEND", lambda graph, _: found.append(graph) or graph.forward)
    compiled._compiled.cache_clear()
    torch._dynamo.reset()
    yield found
    compiled._compiled.cache_clear()
    torch._dynamo.reset()


def test_one_graph_serves_all_layers_and_shapes(graphs):
    """Layers differ in weights only; rows and tokens are symbols. Answers and validation are not compiled."""
    own, forward = CausalForward(made("Llama").train()), CausalForward(made("Llama").train(), Kernels(compile=True))
    names = list(forward.model.state_dict())
    for shape in SHAPES:
        torch.testing.assert_close(step(forward, causal(*shape)), step(own, causal(*shape)), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        forward.loss_sum(training_batch(causal(4, 2), pad_id=1))
    forward.model.eval().generate(torch.tensor([[5, 6]]), max_new_tokens=2, do_sample=False)
    assert len(graphs) == 1
    assert forward.kernels.compiled_is_equivalent
    assert list(forward.model.state_dict()) == names


def test_layers_are_compared_and_then_run_in_training_steps_only(calls, caplog):
    caplog.set_level("INFO")
    model = made("Llama").train()
    forward = CausalForward(model, Kernels(compile=True))
    step(forward, causal(4, 6))
    layers = list(model.model.layers)
    assert list(calls) == layers * 2  # each is compared, then the step
    calls.clear()
    step(forward, causal(3, 5))
    assert list(calls) == layers
    with torch.no_grad():
        forward.loss_sum(training_batch(causal(4), pad_id=1))
    step(CausalForward(model.eval(), forward.kernels), causal(4))
    step(CausalForward(made("Llama").train()), causal(4))
    assert list(calls) == layers
    lines = [record.message for record in caplog.records if record.message.startswith("compile: ")]
    assert lines == [
        "compile: 2 LlamaDecoderLayer; the first step waits for it, for seconds to minutes",
        "compile: took 0 s; outputs and gradients of all layers are the same",
    ]


@pytest.mark.parametrize("every", [1, 2])
def test_recomputed_layers_run_compiled_in_the_backward_pass_too(every, calls):
    model = made("Llama").train()
    model.activation_checkpointing_enable({"use_reentrant": False}, every_n_layers=every)
    forward = CausalForward(model, Kernels(compile=True))
    step(forward, causal(4, 6))
    calls.clear()
    found = step(forward, causal(4, 6))
    assert len(calls) == 2 + sum(layer.gradient_checkpointing for layer in model.model.layers)
    torch.testing.assert_close(found, step(CausalForward(made("Llama").train()), causal(4, 6)), rtol=1e-5, atol=1e-5)


def test_other_outputs_turn_it_off(calls, caplog):
    calls.error = 1.001
    forward = CausalForward(made("Llama").train(), Kernels(compile=True))
    step(forward, causal(4, 6))
    assert "compile: off, the compiled LlamaDecoderLayer computes something else" in caplog.text
    calls.clear()
    assert step(forward, causal(4, 6))[0] == step(CausalForward(made("Llama").train()), causal(4, 6))[0]
    assert not calls
    assert forward.kernels.compiled_is_equivalent is False


def test_other_gradients_turn_it_off(caplog, monkeypatch):
    """Outputs alone do not show a wrong backward pass."""
    forward = CausalForward(made("Llama").train(), Kernels(compile=True))
    monkeypatch.setattr(
        compiled,
        "_compiled",
        lambda kind: lambda layer, x, **kwargs: kind.forward(layer, x.detach() + 1.001 * (x - x.detach()), **kwargs),
    )
    step(forward, causal(4, 6))
    assert "compile: off, the compiled LlamaDecoderLayer computes something else" in caplog.text


def test_what_fails_is_off(monkeypatch, caplog):
    monkeypatch.setattr(compiled, "_compiled", lambda _: 1 / 0)
    forward = CausalForward(made("Llama").train(), Kernels(compile=True))
    expected = step(CausalForward(made("Llama").train()), causal(4, 6))
    torch.testing.assert_close(step(forward, causal(4, 6)), expected, rtol=0, atol=0)
    assert "compile: off, torch.compile fails here (division by zero)" in caplog.text
    assert all("forward" not in vars(layer) for layer in forward.model.model.layers)


def test_a_model_without_layers_is_left_alone(calls, caplog):
    model = made("Llama").train()
    model._no_split_modules = []
    step(CausalForward(model, Kernels(compile=True)), causal(4, 6))
    assert "compile: off, LlamaForCausalLM has no repeated layers" in caplog.text
    assert not calls


def test_the_random_numbers_of_a_training_are_those_without(calls):
    model = made("GPT2").train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    torch.manual_seed(3)
    expected = step(CausalForward(copy.deepcopy(model)), causal(4, 6))
    torch.manual_seed(3)
    torch.testing.assert_close(step(CausalForward(model, Kernels(compile=True)), causal(4, 6)), expected)
    assert calls


def test_a_copy_of_a_model_computes_with_weights_of_its_own(calls):
    model = made("Llama").train()
    compiled.install(compiled.layers_of(model))
    copied = copy.deepcopy(model)
    copied(torch.tensor([[5, 6]]))
    assert list(calls) == list(copied.model.layers)


def losses_and_gradients(module, data, batches, cast):
    """Of steps in train mode, with the dropout of a seed."""
    module.train()
    found = []
    for number, batch in enumerate(batches):
        module.zero_grad()
        torch.manual_seed(number)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            total, tokens = module.forward_pass.loss_sum(training_batch(batch, data.pad_id))
        (total / tokens).backward()
        gradient = torch.cat([p.grad.flatten().float() for p in module.parameters() if p.grad is not None])
        found.append((float(total.detach()) / int(tokens), gradient))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "most"),
    [
        (("tiny_llama", "peft=lora", "model.padding=kept"), 2),
        (("tiny_llama", "peft=lora"), 7),
        (("tiny_llama", "peft=lora", "model.dtype=bfloat16", "model.attention=sdpa"), 7),
        (("tiny_llama", "peft=lora", "peft.dropout=0", "model.padding=skipped"), 16),  # with shared prefixes too
        (("tiny_llama", "peft=none", "model.gradient_checkpointing=true"), 1),
        (("tiny_llama", "peft=lora", "peft.dora=true", "model.gradient_checkpointing=2"), 14),
        (("tiny_gpt2", "peft=none", "model.padding=kept"), 1),
        (("tiny_gpt2", "peft=none", "model.padding=kept", "trainer.precision=bf16-mixed"), 1),
        (("tiny_gpt2", "peft=unfreeze", "model.padding=kept"), 2),
        (("tiny_gemma", "peft=none", "model.padding=kept"), 2),  # a window in one layer, none in the other
        (("tiny_gemma", "peft=lora", "model.padding=kept", "trainer.precision=bf16-mixed"), 3),
        (("tiny_t5", "peft=none", "model.padding=kept"), 6),  # 4, and 2 once lengths change
        (("tiny_t5", "peft=lora"), 25),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("packs", [False, True], ids=["single", "packed"])
def test_steps_are_those_without(overrides, most, packs, built, graphs):
    """Batches of other numbers of rows and tokens compile nothing after the first ones."""
    model, *rest = overrides
    given = (f"model={model}", *rest, "data=alpaca", "data.path=sample", "data.limit=40")
    cast = "trainer.precision=bf16-mixed" in overrides
    steps = []
    for compiles in (False, True):
        data, module = built(*given, f"model.compile={str(compiles).lower()}")
        torch.manual_seed(0)
        for name, p in module.named_parameters():
            if "lora_B" in name:  # zeros would hide the gradient of lora_A
                torch.nn.init.normal_(p, std=0.1)
        rows = data.encoded["train"]
        cut = [rows[:4], rows[4:9], rows[9:12], rows[12:18]]
        batches = [
            [[*batch[:2]], *([row] for row in batch[2:])] if packs else [[row] for row in batch] for batch in cut
        ]
        steps.append(losses_and_gradients(module, data, batches, cast))
    assert module.forward_pass.kernels.compiled_is_equivalent
    assert 0 < len(graphs) <= most
    for (loss, gradient), (expected, other) in zip(*steps, strict=True):
        assert loss == pytest.approx(expected, rel=1e-5)
        assert float((gradient - other).norm() / other.norm()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Llama", "Bart"])
def test_flash_attention_runs_between_graphs(kind, graphs, monkeypatch):
    """Lengths of examples are no constants of a graph."""
    varlen_kernel.install(monkeypatch, "torch")
    model = forward_of(kind, varlen=True, flash=True, compile=True)
    own = forward_of(kind, varlen=True, flash=True)
    counts = []
    for rows in (SEQ2SEQ[1:], SEQ2SEQ[::2], SEQ2SEQ, SEQ2SEQ[:2]) if kind == "Bart" else (causal(*s) for s in SHAPES):
        rows = [[row] for row in rows] if kind == "Bart" else rows
        torch.testing.assert_close(step(model, rows), step(own, rows), rtol=1e-5, atol=1e-5)
        counts.append(len(graphs))
    assert model.kernels.packing_is_equivalent
    assert counts[0] == counts[-1] <= 10


@pytest.mark.slow
def test_liger_kernels_run_in_compiled_layers(graphs, monkeypatch):
    ops = Ops()
    monkeypatch.setattr(liger, "DEVICES", ("cpu",))
    package = ModuleType("liger_kernel")
    monkeypatch.setattr(package, "ops", ops, raising=False)
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.ops", ops)
    forward, own = (
        CausalForward(made("Llama").train(), Kernels(compile=True, liger=True)),
        CausalForward(made("Llama").train()),
    )
    for shape in SHAPES:
        torch.testing.assert_close(step(forward, causal(*shape)), step(own, causal(*shape)), rtol=1e-5, atol=1e-5)
    assert forward.kernels.liger_is_equivalent
    assert forward.kernels.compiled_is_equivalent
    assert graphs
