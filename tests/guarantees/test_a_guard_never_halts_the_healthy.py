"""No healthy training is halted, whatever its model, optimizer, schedule, adapter and precision; every broken one is."""

import copy
import logging
import re
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import peft
import pytest
import torch
import transformers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

from llmft.callbacks.gradient_clipping import GradientClipping
from llmft.callbacks.nan_guard import NanGuard
from llmft.data.tokenization.codec import IGNORED
from llmft.models import schedule
from llmft.models.causal import CausalForward
from llmft.models.module import InstructionModule
from llmft.models.optimizer import bnb_adamw
from llmft.models.seq2seq import Seq2SeqForward
from llmft.utils.errors import Halted

# Some tensors have more than 4,096 elements, which are compared by a hash, and have 8-bit moments.
VOCABULARY, HIDDEN = 300, 16
IDS: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CAUSAL: dict[str, Any] = {
    **IDS, "hidden_size": HIDDEN, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
BART: dict[str, Any] = {
    **IDS, "d_model": HIDDEN, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_start_token_id": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": HIDDEN, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "gpt2": lambda: transformers.GPT2Config(**IDS, n_positions=64, n_embd=HIDDEN, n_layer=2, n_head=2),
    "llama": lambda: transformers.LlamaConfig(**CAUSAL),
    "gemma": lambda: transformers.Gemma3TextConfig(**CAUSAL, query_pre_attn_scalar=8, sliding_window=8),
    "experts": lambda: transformers.GptOssConfig(**CAUSAL, num_local_experts=4, num_experts_per_tok=2),
    "t5": lambda: transformers.T5Config(**T5),
    "bart": lambda: transformers.BartConfig(**BART),
    # with all decoder layers skipped, no LoRA matrix would be part of the loss
    "m2m100": lambda: transformers.M2M100Config(**BART, encoder_layerdrop=0.1, decoder_layerdrop=0.0),
}
TARGETS = {"gpt2": ["c_attn"], "t5": ["q", "v"]}
OPTIMIZERS: dict[str, Any] = {
    "adamw": torch.optim.AdamW,
    "adamw_fused": partial(torch.optim.AdamW, fused=True),
    "amsgrad": partial(torch.optim.AdamW, amsgrad=True),
    "adam": torch.optim.Adam,
    "adamw_32bit": partial(bnb_adamw, betas=(0.9, 0.999), bits=32, paged=False, fallback=True),
    "adamw_8bit": partial(bnb_adamw, betas=(0.9, 0.999), bits=8, paged=False, fallback=True),
    "radam": torch.optim.RAdam,
    "nadam": torch.optim.NAdam,
    "adafactor": torch.optim.Adafactor,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
}


@dataclass(frozen=True)
class Case:
    """A training."""

    model: str = "gpt2"
    method: str = "none"  # none, lora, head
    optimizer: str = "adamw"
    rate: float = 1e-3
    decay: float = 0.0
    scheduler: str = "constant_with_warmup"
    warmup: int = 0
    norms: float = 1.0  # of the weights of all norms
    frozen: int = 0  # tensors that are frozen by design
    dtype: torch.dtype = torch.float32
    precision: Any = "32-true"
    max_norm: float = 1.0
    accumulate: int = 1
    steps: int = 12
    seed: int = 0


CASES = st.builds(
    Case,
    model=st.sampled_from(sorted(CONFIGS)),
    method=st.sampled_from(["none", "lora", "head"]),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    rate=st.floats(-12, -3).map(lambda exponent: 10**exponent),
    decay=st.sampled_from([0.0, 0.01, 1.0]),
    scheduler=st.sampled_from(["constant_with_warmup", "linear", "cosine", "plateau"]),
    warmup=st.sampled_from([0, 3, 500, 5000]),
    norms=st.sampled_from([0.5, 1.0, 6.0]),  # of 100, attention saturates, and queries and keys have no gradient indeed
    frozen=st.integers(0, 3),
    dtype=st.sampled_from([torch.float32, torch.float32, torch.bfloat16]),
    precision=st.sampled_from(["32-true", "bf16-mixed"]),
    max_norm=st.sampled_from([1e-3, 1.0, 1e3]),
    accumulate=st.sampled_from([1, 2]),
    steps=st.sampled_from([8, 14, 24]),
    seed=st.integers(0, 99),
)


@cache
def built(kind: str) -> Any:
    config = CONFIGS[kind]()
    with torch.random.fork_rng(devices=[]):  # made on the CPU
        torch.default_generator.manual_seed(0)
        auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        return auto.from_config(config, dtype=torch.float32)


def adapted(case: Case) -> Any:
    model = copy.deepcopy(built(case.model))
    for name, parameter in model.named_parameters():
        if "norm" in name or ".ln_" in name:
            parameter.data.mul_(0).add_(case.norms)
    if case.method == "lora":
        targets = TARGETS.get(case.model, ["q_proj", "v_proj"])
        return peft.get_peft_model(
            model, peft.LoraConfig(r=2, target_modules=targets, fan_in_fan_out=case.model == "gpt2")
        )
    if case.method == "head":
        model.requires_grad_(False).get_output_embeddings().requires_grad_(True)
        return model
    for parameter in list(model.parameters())[: case.frozen]:
        parameter.requires_grad_(False)
    return model.to(case.dtype)


def batches(case: Case, seq2seq: bool) -> list[dict[str, Any]]:
    """As ``training_batch`` makes them: two examples, the second one padded."""
    generator = torch.Generator().manual_seed(case.seed)
    made = []
    for number in range(case.steps * case.accumulate):
        ids = torch.randint(3, VOCABULARY, (2, 10), generator=generator)
        labels = torch.randint(3, VOCABULARY, (2, 5), generator=generator) if seq2seq else ids.clone()
        mask = torch.ones_like(ids)
        mask[1, 7:] = 0
        labels[1, -3:] = IGNORED
        made.append(
            {"input_ids": ids, "attention_mask": mask, "labels": labels, "places": [f"{number}:0", f"{number}:1"]}
        )
    return made


def scheduled(case: Case, optimizer: Any) -> Any:
    if case.scheduler == "plateau":
        return schedule.plateau_schedule(optimizer, name="plateau", factor=0.5, patience=1, total_steps=0)
    total = case.warmup + case.steps
    return schedule.warmup_schedule(optimizer, name=case.scheduler, warmup_steps=case.warmup, total_steps=total)


def fit(case: Case, folder: Any, plant: Any = None) -> InstructionModule:
    """Train a case with the guard, after ``plant`` has broken something."""
    torch.manual_seed(case.seed)
    model = adapted(case)
    seq2seq = model.config.is_encoder_decoder
    forward = (Seq2SeqForward if seq2seq else CausalForward)(model)
    optim = partial(OPTIMIZERS[case.optimizer], lr=case.rate, weight_decay=case.decay)
    module = InstructionModule(forward, optim, partial(scheduled, case))
    guard = NanGuard(3, 3.0, 3, 5, 10, "val/loss", run=SimpleNamespace(path=folder))  # pyright: ignore[reportArgumentType]
    trainer = pl.Trainer(
        max_steps=case.steps, accelerator="cpu", precision=case.precision, accumulate_grad_batches=case.accumulate,
        callbacks=[guard, GradientClipping(case.max_norm)], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    data = batches(case, seq2seq)
    if plant:
        plant(module, data)
    trainer.fit(module, *(DataLoader(part, batch_size=None) for part in (data, data[:1])))  # pyright: ignore[reportArgumentType]
    return module


GEMMA = Case("gemma", rate=2e-5, scheduler="linear", warmup=500, norms=6.0)
NORMS = Case("gpt2", rate=5e-5, scheduler="linear", warmup=5000)
TINY = Case("gpt2", rate=1e-12)


@settings(max_examples=8)
@example(GEMMA)
@example(NORMS)
@example(TINY)
@example(Case("m2m100", steps=8, seed=6))  # a layer is skipped in the first step
@given(CASES)
def test_a_healthy_training_is_not_halted(tmp_path_factory, case):
    module = fit(case, tmp_path_factory.getbasetemp())
    assert module.trainer.global_step == case.steps


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(CASES)
def test_two_hundred_healthy_trainings_are_not_halted(tmp_path_factory, case):
    module = fit(case, tmp_path_factory.getbasetemp())
    assert module.trainer.global_step == case.steps


def test_weights_below_the_rounding_step_are_named_with_the_learning_rate(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="llmft.diagnostics.idle_weights"):
        fit(TINY, tmp_path)
    early, late = [record.getMessage() for record in caplog.records if record.name == "llmft.diagnostics.idle_weights"]
    assert "have not changed in 5 steps: at a learning rate of up to 1e-12" in early
    assert "at a learning rate of at most 1e-12, their updates were below the rounding step of float32" in late


def parameter(module: InstructionModule) -> tuple[str, nn.Parameter]:
    """A trainable one in the middle of the model."""
    trained = [(name, p) for name, p in module.model.named_parameters() if p.requires_grad and p.ndim > 1]
    return trained[len(trained) // 2]


def detached(module: InstructionModule, _: Any) -> None:
    parameter(module)[1].register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))


def zero_gradient(module: InstructionModule, _: Any) -> None:
    parameter(module)[1].register_hook(torch.zeros_like)


def all_gradients_zero(module: InstructionModule, _: Any) -> None:
    for p in module.model.parameters():
        if p.requires_grad:
            p.register_hook(torch.zeros_like)


def infinite_gradient(module: InstructionModule, _: Any) -> None:
    parameter(module)[1].register_hook(lambda gradient: gradient / 0)


def _optimizer_of(module: InstructionModule, change: Any) -> None:
    make = module.optim

    def optim(parameters: Any) -> Any:
        optimizer = make(parameters)
        change(optimizer)
        return optimizer

    module.optim = optim


def left_out(module: InstructionModule, _: Any) -> None:
    def change(optimizer: Any) -> None:
        group = optimizer.param_groups[0]
        group["params"] = [p for p in group["params"] if p is not parameter(module)[1]]

    _optimizer_of(module, change)


def restored(module: InstructionModule, _: Any) -> None:
    """A weight that something sets back after each step."""
    chosen = parameter(module)[1]
    before = chosen.detach().clone()
    _optimizer_of(module, lambda made: made.register_step_post_hook(lambda *_: chosen.data.copy_(before)))


def nan_update(module: InstructionModule, _: Any) -> None:
    """The last update, after which no loss is computed."""
    chosen = parameter(module)[1]
    number = iter(range(1, 1000))

    def fill(*_: Any) -> None:
        if next(number) == module.trainer.max_steps:
            chosen.data.fill_(float("nan"))

    _optimizer_of(module, lambda made: made.register_step_post_hook(fill))


def nan_weights(module: InstructionModule, _: Any) -> None:
    parameter(module)[1].data[0, 0] = float("nan")


def nan_loss(module: InstructionModule, _: Any) -> None:
    real = module.forward_pass.loss_sum

    def loss_sum(batch: Any) -> Any:
        total, tokens = real(batch)
        return total * float("nan"), tokens

    module.forward_pass.loss_sum = loss_sum  # pyright: ignore[reportAttributeAccessIssue]


def collapsed_loss(module: InstructionModule, _: Any) -> None:
    real = module.forward_pass.loss_sum

    def loss_sum(batch: Any) -> Any:
        total, tokens = real(batch)
        return total * 0, tokens

    module.forward_pass.loss_sum = loss_sum  # pyright: ignore[reportAttributeAccessIssue]


def masked_labels(_: Any, data: list[dict[str, Any]]) -> None:
    for batch in data:
        batch["labels"].fill_(IGNORED)


def exploding(module: InstructionModule, _: Any) -> None:
    real = module.forward_pass.loss_sum
    calls = iter(range(1000))

    def loss_sum(batch: Any) -> Any:
        total, tokens = real(batch)
        return total * 10.0 ** next(calls), tokens

    module.forward_pass.loss_sum = loss_sum  # pyright: ignore[reportAttributeAccessIssue]


BROKEN = {
    detached: "1 trainable weights have no gradient",
    zero_gradient: "1 trainable weights had a gradient of exactly 0 in 5 steps",
    all_gradients_zero: "the gradient was exactly 0 for 3 steps",
    infinite_gradient: "the gradient is not finite",
    left_out: "1 trainable weights are not in the optimizer",
    restored: "1 trainable weights did not change in ",
    # torch's attention on CPUs may answer NaN queries with 0, so that the loss stays finite
    nan_update: "val/loss is nan|the weight .* is not finite",
    nan_weights: "the loss is nan|the gradient is not finite|the weight .* is not finite",
    nan_loss: "the loss is nan",
    collapsed_loss: "the loss was exactly 0 for 3 steps",
    masked_labels: "no token of the step has a label",
    exploding: "it exploded",
}
SOUND = st.builds(
    Case,
    model=st.sampled_from(sorted(CONFIGS)),
    method=st.sampled_from(["none", "lora"]),
    optimizer=st.sampled_from(["adamw", "adamw_fused", "amsgrad", "adam"]),
    rate=st.sampled_from([1e-4, 1e-3]),
    scheduler=st.sampled_from(["constant_with_warmup", "linear"]),
    warmup=st.sampled_from([0, 3]),
    precision=st.sampled_from(["32-true", "bf16-mixed"]),
    max_norm=st.sampled_from([0.1, 1e3]),
    accumulate=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)


@pytest.mark.parametrize(
    ("plant", "case"),
    [*((plant, Case()) for plant in BROKEN), (zero_gradient, Case("bart", rate=1e-4))],
    ids=lambda value: value.model if isinstance(value, Case) else value.__name__,
)
def test_a_broken_training_is_halted(plant, case, tmp_path):
    with pytest.raises(Halted) as halted:
        fit(case, tmp_path, plant)
    assert re.search(BROKEN[plant], str(halted.value).partition("\n")[0])


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(SOUND, st.sampled_from(list(BROKEN)))
def test_a_broken_training_is_halted_whatever_else(tmp_path_factory, case, plant):
    with pytest.raises(Halted) as halted:
        fit(case, tmp_path_factory.getbasetemp(), plant)
    assert re.search(BROKEN[plant], str(halted.value).partition("\n")[0])
