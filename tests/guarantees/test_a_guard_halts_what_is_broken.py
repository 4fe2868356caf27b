"""What is broken is halted: exit code 3, a post-mortem that names step, rows and module, and no broken weights kept."""

import csv
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmft.data.preprocessing import truncation
from llmft.data.tokenization.codec import IGNORED
from llmft.diagnostics import forward_trace
from llmft.diagnostics.idle_weights import IdleWeights
from llmft.models.backbone import load
from llmft.models.module import InstructionModule
from llmft.models.peft import trainable

RUN = (
    *(
        "data=alpaca",
        "data.path=sample",
        "data.limit=40",
        "data.batch_size=2",
        "output_dir=run",
        "logger=none",
        "questions=0",
        "evaluate.rows=0",
        "report.write=false",
    ),
    *(
        "callbacks.samples.number=0",
        "callbacks.progress.refresh_rate=0",
        "trainer.log_every_n_steps=1",
        "baseline=false",
    ),
)
# (model, peft, accumulation, a part of the model, the module whose output is broken first once its weights hold a NaN)
PLACES = [
    ("tiny_gpt2", "none", 1, "transformer.h.1.mlp.c_fc", "transformer.h.1.mlp.c_fc"),
    ("tiny_t5", "none", 3, "decoder.block.1.layer.1.EncDecAttention.k", "decoder.block.1.layer.1.EncDecAttention.k"),
    ("tiny_t5", "lora", 2, "encoder.block.0.layer.0.SelfAttention.q.lora_B.default", "q.lora_B.default"),
    ("tiny_llama", "lora", 2, "model.layers.1.self_attn.v_proj.lora_A.default", "v_proj.lora_A.default"),
]


def strict_json(file):
    """JSON as other programs read it: NaN and Infinity are none."""

    def refuse(word):
        raise AssertionError(f"{file} holds {word}")

    return json.loads(file.read_text(), parse_constant=refuse)


def at_step(monkeypatch, step, plant):
    """Call ``plant(module, batch)`` before every forward pass of optimizer step ``step`` (1 is the first)."""
    real = InstructionModule.training_step
    seen = []

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == step - 1:
            plant(self, batch)
            seen.extend(batch["places"])
        return real(self, batch, batch_idx)

    monkeypatch.setattr(InstructionModule, "training_step", training_step)
    return seen


def part(module, name):
    return next(m for n, m in module.model.named_modules() if n.endswith(name))


@pytest.mark.parametrize(("model", "peft", "accumulate", "where", "first_bad"), PLACES)
def test_a_planted_nan_is_found(model, peft, accumulate, where, first_bad, llmft, tmp_path, monkeypatch):
    def plant(module, _):
        with torch.no_grad():
            part(module, where).weight[0, 0] = float("nan")

    rows = at_step(monkeypatch, 4, plant)
    code, _, err = llmft(*RUN, f"model={model}", f"peft={peft}", f"trainer.accumulate_grad_batches={accumulate}")
    assert code == 3
    assert "halted at step 4, epoch 0: the loss is nan" in err
    report = strict_json(tmp_path / "run" / "halt" / "report.json")
    assert (report["step"], report["epoch"], report["during"], report["loss"]) == (4, 0, "the step", None)
    assert len(report["rows"]) == 2 * accumulate
    assert report["rows"] == rows
    assert report["first_bad_module"]["module"].endswith(first_bad)
    assert report["first_bad_module"]["input"]["broken"] == 0
    assert report["first_bad_module"]["output"]["broken"] > 0
    assert [name for name in report["weights_not_finite"] if not name.endswith(f"{where}.weight")] == []
    steps = report["history"]
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    logged = [row for row in csv.DictReader((tmp_path / "run" / "metrics.csv").open()) if row["train/loss"]]
    assert [step["loss"] for step in steps[:3]] == [float(row["train/loss"]) for row in logged]
    assert [step["grad_norm"] for step in steps[:3]] == [float(row["train/grad_norm"]) for row in logged]
    # the message says the same
    for text in (*rows, report["first_bad_module"]["module"], "way out:", "lower optim.lr", "replay run="):
        assert text in err
        assert text in strict_json(tmp_path / "run" / "run.json")["reason"]
    # what it takes to run it again
    window = torch.load(tmp_path / "run" / "halt" / "window.pt", weights_only=True)
    assert [place for batch in window["batches"] for place in batch["places"]] == rows
    assert len(window["states"]) == accumulate
    weights = load_file(tmp_path / "run" / "halt" / "weights.safetensors")
    assert sum(not torch.isfinite(tensor).all() for tensor in weights.values()) == 1
    assert not list((tmp_path / "run").glob("checkpoints/*.ckpt"))


@pytest.mark.parametrize("batching", ["packed", pytest.param("rows", marks=pytest.mark.slow)])
def test_a_model_that_was_broken_before_is_named_before_the_first_step(batching, llmft, tmp_path, monkeypatch):
    real = load.load_model

    def planted(*arguments):
        model = real(*arguments)
        with torch.no_grad():
            model.transformer.h[1].mlp.c_fc.weight[0, 0] = float("nan")
        return model

    monkeypatch.setattr(load, "load_model", planted)
    code, _, err = llmft(*RUN, "model=tiny_gpt2", "baseline=true", f"data.batching={batching}")
    assert code == 3, err
    assert "attend to each other" not in err
    assert "halted before the first step: val/loss is nan" in err
    assert "the model was broken before the first step: check the files of model.path" in err
    report = strict_json(tmp_path / "run" / "halt" / "report.json")
    assert report["first_bad_module"]["module"] == "base_model.model.transformer.h.1.mlp.c_fc"
    assert report["weights_not_finite"] == ["base_model.model.transformer.h.1.mlp.c_fc.weight"]
    assert report["during"] == "validation"
    assert len(report["rows"]) == 2


def test_a_gradient_that_breaks_later_leaves_the_last_good_checkpoint(llmft, tmp_path, monkeypatch):
    at_step(monkeypatch, 14, lambda module, _: module.model.lm_head.weight.register_hook(lambda g: g * float("inf")))
    code, _, err = llmft(
        *RUN, "model=tiny_gpt2", "peft=none", "trainer.max_steps=20", "data.limit=14", "data.split={val:0.2,test:0}"
    )
    assert code == 3
    assert "halted at step 14, epoch 2: the gradient is not finite" in err
    report = strict_json(tmp_path / "run" / "halt" / "report.json")
    assert report["gradients_not_finite"] == ["transformer.wte.weight"]  # tied to the head
    assert report["first_bad_module"] is None
    for name in ("last", "best"):
        state = torch.load(tmp_path / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert state["global_step"] == 12
        assert all(torch.isfinite(tensor).all() for tensor in state["state_dict"].values())
    assert sorted(file.name for file in (tmp_path / "run" / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    ("model", "peft", "rate", "what"),
    [
        ("tiny_t5", "none", "1e30", "at step 2, epoch 0: the gradient is not finite (its norm is nan)"),
        ("tiny_gpt2", "none", "10", "at step 4, epoch 0: the loss is "),
    ],
)
def test_an_exploding_learning_rate(model, peft, rate, what, llmft, tmp_path):
    code, _, err = llmft(*RUN, f"model={model}", f"peft={peft}", f"optim.lr={rate}", "scheduler=constant")
    assert code == 3, err
    assert what in err
    assert ("it exploded" in err) == (rate == "10")
    assert "lower optim.lr" in err
    strict_json(tmp_path / "run" / "halt" / "report.json")
    assert not list((tmp_path / "run").glob("checkpoints/*.ckpt"))


def test_the_weights_after_the_last_step_are_checked_too(llmft, tmp_path, monkeypatch):
    real = InstructionModule.configure_optimizers

    def breaking(self):
        found: Any = real(self)
        weight = self.model.transformer.ln_f.weight
        found["optimizer"].register_step_post_hook(lambda *_: weight.data.fill_(float("inf")))
        return found

    monkeypatch.setattr(InstructionModule, "configure_optimizers", breaking)
    code, _, err = llmft(*RUN, "model=tiny_gpt2", "peft=none", "data.split={val:0,test:0}", "trainer.max_steps=1")
    assert code == 3, err
    assert "halted at step 1, epoch 0: the weight transformer.ln_f.weight is not finite" in err
    report = strict_json(tmp_path / "run" / "halt" / "report.json")
    assert report["during"] == "the update"
    assert report["weights_not_finite"] == ["transformer.ln_f.weight"]
    assert report["first_bad_module"]["module"] == "transformer.ln_f"
    assert not list((tmp_path / "run").glob("checkpoints/*.ckpt"))
    assert not (tmp_path / "run" / "model").exists()


def test_a_gradient_of_zero_is_a_dead_training(llmft):
    # a step so large that LoRA saturates every activation: the loss stays at that of guessing, log(259)
    code, _, err = llmft(*RUN, "model=tiny_llama", "peft=lora", "optim.lr=1e4", "scheduler=constant")
    assert code == 3, err
    assert "halted at step 5, epoch 0: the gradient was exactly 0 for 3 steps: the model no longer learns" in err


def test_a_validation_that_is_not_finite(llmft, tmp_path):
    high = ("optim.lr=1e4", "scheduler=constant", "trainer.max_steps=2", "objective=val/perplexity", "data.limit=5")
    code, _, err = llmft(*RUN, "model=tiny_gpt2", "peft=none", *high)
    assert code == 3, err
    assert "halted at step 2, epoch 0: val/perplexity is inf" in err
    assert strict_json(tmp_path / "run" / "run.json")["status"] == "halted"
    assert strict_json(tmp_path / "run" / "halt" / "report.json")["during"] == "validation"
    assert not list((tmp_path / "run").glob("checkpoints/*.ckpt"))
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("model", ["tiny_gpt2", "tiny_t5"])
def test_a_window_of_masked_labels(model, llmft, tmp_path, monkeypatch):
    at_step(monkeypatch, 2, lambda _, batch: batch["labels"].fill_(IGNORED))
    code, _, err = llmft(*RUN, f"model={model}", "trainer.accumulate_grad_batches=2")
    assert code == 3, err
    assert "halted at step 2, epoch 0: no token of the step has a label" in err
    assert "look at them with `python -m llmft preview`" in err
    assert len(strict_json(tmp_path / "run" / "halt" / "report.json")["rows"]) == 4


def test_a_masked_batch_in_a_window_with_labels_is_fine(llmft, monkeypatch):
    masked = []

    def plant(_, batch):
        if not masked:
            masked.append(batch["labels"].fill_(IGNORED))

    at_step(monkeypatch, 2, plant)
    code, _, err = llmft(*RUN, "model=tiny_gpt2", "trainer.accumulate_grad_batches=2", "trainer.max_steps=3")
    assert code == 0, err
    assert masked


def test_a_row_without_labels_is_dropped_and_counted(llmft, tmp_path, monkeypatch):
    real = truncation.Truncation.fit

    def masks_one(self, example, codec, *prompt):
        fitted = real(self, example, codec, *prompt)
        return fitted._replace(row=replace(fitted.row, supervised=0)) if example.place.endswith("json:7") else fitted

    monkeypatch.setattr(truncation.Truncation, "fit", masks_one)
    code, _, err = llmft(*RUN, "model=tiny_gpt2", "debug=fast", "data.cache=off")
    assert code == 0, err
    assert strict_json(tmp_path / "run" / "run.json")["data"]["dropped"] == {"nothing to learn": 1}
    assert json.loads((tmp_path / "run" / "rejected.jsonl").read_text())["place"] == "sample:alpaca.json:7"


CUT = {  # what a user's own model code can do wrong, and how it is reported
    "no gradient": ("halted at step 1, epoch 0: 1 trainable weights have no gradient", "none"),
    "zero gradient": ("halted at step 6, epoch 0: 1 trainable weights had a gradient of exactly 0 in 5 steps", "zero"),
    "not in the optimizer": (
        "halted at step 1, epoch 0: 1 trainable weights are not in the optimizer",
        "left out",
    ),
}


@pytest.mark.parametrize(
    ("case", "model", "peft"),
    [
        ("no gradient", "tiny_t5", "lora"),
        ("zero gradient", "tiny_gpt2", "none"),
        ("not in the optimizer", "tiny_gpt2", "none"),
        pytest.param("no gradient", "tiny_gpt2", "none", marks=pytest.mark.slow),
        pytest.param("zero gradient", "tiny_t5", "lora", marks=pytest.mark.slow),
        pytest.param("not in the optimizer", "tiny_t5", "lora", marks=pytest.mark.slow),
    ],
)
def test_a_trainable_weight_that_does_not_learn(case, model, peft, llmft, tmp_path, monkeypatch):
    message, how = CUT[case]
    name = "q.lora_A.default.weight" if peft == "lora" else "h.0.mlp.c_proj.weight"
    real, real_optimizer = trainable.adapt, InstructionModule.configure_optimizers

    def chosen(model):
        return next((n, p) for n, p in model.named_parameters() if n.endswith(name))

    def adapt(*arguments):
        model = real(*arguments)
        if how == "zero":
            chosen(model)[1].register_hook(torch.zeros_like)
        if how == "none":
            chosen(model)[1].register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        return model

    def configure(self):
        found: Any = real_optimizer(self)
        if how == "left out":
            group = found["optimizer"].param_groups[0]
            group["params"] = [p for p in group["params"] if p is not chosen(self.model)[1]]
        return found

    monkeypatch.setattr(trainable, "adapt", adapt)
    monkeypatch.setattr(InstructionModule, "configure_optimizers", configure)
    code, _, err = llmft(*RUN, f"model={model}", f"peft={peft}", "scheduler=constant")
    assert code == 3, err
    assert message in err
    assert strict_json(tmp_path / "run" / "halt" / "report.json")["weights_named"][0].endswith(name)


@pytest.mark.parametrize(("model", "peft"), [("tiny_t5", "none"), ("tiny_llama", "lora")])
def test_a_healthy_training_is_not_traced(model, peft, llmft, tmp_path, monkeypatch):
    """Warm-up from 0 and LoRA's zero start are healthy; no hook is ever set."""
    monkeypatch.setattr(forward_trace.ForwardTrace, "__enter__", None)
    steps = ("trainer.max_steps=12", "scheduler.warmup_steps=4", "baseline=true")
    code, _, err = llmft(*RUN, f"model={model}", f"peft={peft}", *steps)
    assert code == 0, err
    assert not (tmp_path / "run" / "halt").exists()


def test_a_halt_that_cannot_be_written_is_still_reported(llmft, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    code, _, err = llmft(*RUN, "model=tiny_gpt2", "peft=none", "optim.lr=10", "scheduler=constant")
    assert code == 3
    assert "it exploded" in err
    assert "not written:" in err
    assert "No space left on device" in err
    assert not (tmp_path / "run" / "halt").exists()


def test_a_window_that_cannot_be_run_again_is_still_reported(llmft, tmp_path, monkeypatch):
    def out_of_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(forward_trace, "rerun", out_of_memory)
    code, _, err = llmft(*RUN, "model=tiny_gpt2", "peft=none", "optim.lr=10", "scheduler=constant")
    assert code == 3
    assert "unknown, the batch could not be rerun (OutOfMemoryError: CUDA out of memory)" in err
    assert len(strict_json(tmp_path / "run" / "halt" / "report.json")["rows"]) == 2


def idle_after(steps, rates, gradients, moves, size=2):
    """The first fault of a layer whose weight gets these gradients at these rates, and the step it comes at."""
    layer = torch.nn.Linear(size, size, bias=False)
    layer.weight.data.fill_(1.0)
    optimizer = torch.optim.AdamW(layer.parameters(), weight_decay=0.0)
    watch = IdleWeights(steps)
    for number, (rate, gradient) in enumerate(zip(rates, gradients, strict=True), start=1):
        layer.weight.grad = torch.full_like(layer.weight, gradient)
        optimizer.param_groups[0]["lr"] = rate
        if fault := watch.fault(layer, optimizer, rate):
            return number, fault
        before = layer.weight.detach().clone()
        optimizer.step()
        if not moves:
            layer.weight.data.copy_(before)
    return None


def test_steps_with_a_rate_of_zero_do_not_count():
    assert idle_after(2, [0, 0, 0, 1, 1], [0.0] * 5, True) is None
    found = idle_after(2, [0, 0, 0, 1, 1, 1], [0.0] * 6, True)
    assert found == (6, ("1 trainable weights had a gradient of exactly 0 in 2 steps", ["weight"]))


def test_a_gradient_that_comes_late_is_enough():
    assert idle_after(2, [0, 1, 1, 1, 1], [0.0, 0.0, 0.5, 0.0, 0.0], True) is None


@pytest.mark.parametrize(("size", "step"), [(2, 3), (100, 4)])  # compared by a copy; by a hash, then by a copy
def test_a_weight_that_never_moves_is_found_although_it_has_a_gradient(size, step):
    found = idle_after(2, [1] * 4, [0.5] * 4, False, size)
    assert found == (step, (f"1 trainable weights did not change in {step - 1} steps", ["weight"]))


def test_the_embedding_of_a_new_token_that_does_not_occur_is_healthy(caplog):
    layer = torch.nn.ModuleDict({"trainable_tokens": torch.nn.Linear(2, 2, bias=False)})
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1.0)
    watch = IdleWeights(2)
    with caplog.at_level("INFO"):
        for _ in range(6):
            layer["trainable_tokens"].weight.grad = torch.zeros(2, 2)
            assert watch.fault(layer, optimizer, 1.0) is None
            optimizer.step()
        watch.report_unchanged()
    assert caplog.messages == []


def test_the_smallest_move_of_all_alike_is_one():
    # every weight goes from 1 to the next float32, or two: a hash that adds or xors them up would miss it
    assert idle_after(2, [2.0**-23] * 4, [1.0] * 4, True) is None


def test_the_smallest_move_of_one_weight_of_many_is_one():
    layer = torch.nn.Linear(100, 100, bias=False)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1.0)
    watch = IdleWeights(2)
    for _ in range(4):
        layer.weight.grad = torch.ones_like(layer.weight)
        assert watch.fault(layer, optimizer, 1.0) is None
        before = layer.weight.detach().clone()
        optimizer.step()
        layer.weight.data.copy_(before)
        layer.weight.data[3, 4] = torch.nextafter(layer.weight.data[3, 4], torch.tensor(9.0))


def test_a_loss_of_zero_is_allowed_twice_but_not_three_times_in_a_row(llmft, monkeypatch):
    losses = iter([1.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0])
    real = InstructionModule._close_window

    def close(self, optimizer):
        real(self, optimizer)
        self.window_loss = next(losses)

    monkeypatch.setattr(InstructionModule, "_close_window", close)
    code, _, err = llmft(*RUN, "model=tiny_gpt2")
    assert code == 3, err
    assert "halted at step 7, epoch 0: the loss was exactly 0 for 3 steps: it collapsed" in err
    assert "nothing left to learn" in err
