"""Resolve ``auto`` values of a config to the fastest equivalent setting on this hardware, each with its reason."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

from llmft.config.auto_model import read_config
from llmft.config.schema import RULES, TrainConfig
from llmft.config.schema.model import BY_LENGTHS
from llmft.config.schema.peft import Lora
from llmft.utils import flash, liger
from llmft.utils.device import accelerator_of, bfloat16_units, runs_on_gpu
from llmft.utils.errors import UserError, checked
from llmft.utils.text import as_yaml

# Values of `auto` with performance=plain, and in commands that do not resolve a training config.
PLAIN = {
    "model.dtype": "float32",
    "model.attention": "sdpa",
    "model.padding": "kept",
    "model.shared_prefix": "off",
    "model.liger": False,
    "optim.fused": False,
    "trainer.precision": "32-true",
    "peft.compute_dtype": "float32",
}


C = TypeVar("C", bound=TrainConfig)


class Choice(NamedTuple):
    """A key that was ``auto``, its resolved value, and the reason.

    Attributes:
        key: The key.
        value: The resolved value.
        why: The reason, and how to change it where that is not plain.
        brief: Whether the key changes nothing here, or not much: it stands in ``log.txt``, not on the terminal.
    """

    key: str
    value: Any
    why: str
    brief: bool = False

    @property
    def setting(self) -> str:
        """As on the command line: ``optim.fused=true``."""
        return f"{self.key}={as_yaml(self.value)}"


def auto_choices(cfg: TrainConfig) -> list[Choice]:
    """A concrete value for each ``auto`` in a training config; the run directory records them.

    The choices depend only on the config and the type of hardware. Nothing is timed, because two runs on one machine must be
    bitwise identical; benchmarks/means.py and docs/performance.md have the measurements behind the rules.

    Returns:
        The keys that are ``auto``; keys that the user set explicitly are not included.
    """
    chosen = {key: Choice(key, value, "performance=plain") for key, value in PLAIN.items()}
    if cfg.performance == "auto":
        chosen |= {choice.key: choice for choice in _choices(cfg)}
    return [choice for key, choice in chosen.items() if cfg.select(key) == "auto"]


def resolve_auto(cfg: C) -> tuple[C, list[Choice]]:
    """A training config with its ``auto`` values replaced, and the choices.

    Raises:
        UserError: As ``check_resolved``.
    """
    found = auto_choices(cfg)
    config = cfg.replaced({choice.key: choice.value for choice in found})
    check_resolved(config, found)
    return config, found


def check_resolved(config: TrainConfig, choices: Sequence[Choice]) -> None:
    """Check the rules between keys again with resolved values; a run that breaks one could not be resumed.

    Raises:
        UserError: A key that the user set contradicts a resolved value; the message has the reason for that value.
    """
    rules = [rule for rule in RULES if not (rule.imports or rule.machine)]
    faults = []
    for rule in rules:
        reasons = [f"auto chose {choice.setting} ({choice.why})" for choice in choices if choice.key in rule.keys]
        faults += ["; ".join([fault, *reasons]) for fault in rule.faults(config, ())]
    checked(faults)


def _choices(cfg: TrainConfig) -> Iterator[Choice]:
    gpu = runs_on_gpu(cfg.trainer)
    units = bfloat16_units(gpu=gpu)
    precision = _precision(cfg, units)
    yield precision
    if cfg.trainer.precision == "auto":
        cfg = cfg.replaced({precision.key: precision.value})
    yield _compute_dtype(cfg, units)
    dtype = _dtype(cfg, units)
    weights = dtype.value if cfg.model.dtype == "auto" else cfg.model.dtype
    yield dtype
    half = weights == "bfloat16" or cfg.trainer.precision in ("bf16-mixed", "16-mixed")
    attention = _attention_on_gpu(cfg, half=half) if gpu else _attention(cfg, half=half)
    yield attention
    by_lengths = (attention.value if cfg.model.attention == "auto" else cfg.model.attention) in BY_LENGTHS
    padding = _padding(cfg, gpu=gpu, by_lengths=by_lengths)
    yield padding
    skipped = "skipped" in (cfg.model.padding, cfg.model.padding == "auto" and padding.value)
    yield _shared_prefix(cfg, skipped=skipped, by_lengths=by_lengths)
    yield _liger(cfg, gpu=gpu)
    yield _fused(cfg)


def _precision(cfg: TrainConfig, units: str | None) -> Choice:
    key, accelerator = "trainer.precision", accelerator_of(cfg.trainer)
    if accelerator == "cuda" and units:
        return Choice(key, "bf16-mixed", f"bfloat16: {units}; trainer.precision=32-true computes in float32")
    if accelerator == "cpu":
        return Choice(key, "32-true", "on a CPU; bf16-mixed only where it is asked for", brief=True)
    why = "this GPU has no bfloat16 matrix units" if accelerator == "cuda" else "on an Apple GPU"
    fails = " (not for T5, which overflows)" if cfg.model.family == "seq2seq" else ""
    return Choice(key, "32-true", f"{why}; trainer.precision=16-mixed computes in float16{fails}")


def _compute_dtype(cfg: TrainConfig, units: str | None) -> Choice:
    """Of the products with 4-bit weights; int8 weights have a kernel of their own, other weights are not quantized."""
    key, cuda = "peft.compute_dtype", runs_on_gpu(cfg.trainer)
    if cfg.peft.quantise not in ("nf4", "fp4"):
        return Choice(key, "float32", "no weights in 4 bits", brief=True)
    if not cuda:
        return Choice(key, "float32", "not on a CUDA GPU")
    for asked in ("evaluate.dtype", "generation.dtype"):
        if cfg.select(asked) == "float32":
            return Choice(key, "float32", f"{asked}=float32 asks for it")
    if units and cfg.trainer.precision != "16-mixed":
        return Choice(key, "bfloat16", units)
    if cfg.model.family == "seq2seq":
        return Choice(key, "float32", "this GPU has no bfloat16 matrix units, and T5 overflows in float16")
    why = "trainer.precision=16-mixed" if units else "this GPU has no bfloat16 matrix units"
    return Choice(key, "float16", f"{why}; peft.compute_dtype=float32 if it overflows")


def _dtype(cfg: TrainConfig, units: str | None) -> Choice:
    if why := _keeps_float32(cfg):
        if units and cfg.trainer.precision == "32-true":
            why += f"; trainer.precision=bf16-mixed is faster, {units}"
        return Choice("model.dtype", "float32", why)
    if units is None:
        return Choice("model.dtype", "float32", "this hardware has no bfloat16 matrix units")
    return Choice("model.dtype", "bfloat16", f"frozen weights only, trainable parameters stay float32; {units}")


def _keeps_float32(cfg: TrainConfig) -> str | None:
    if cfg.peft.method != "lora":
        return "trainable parameters would lose small updates in bfloat16"
    if cfg.peft.quantise and not runs_on_gpu(cfg.trainer):
        return "for the weights that are not quantized"
    if cfg.model.new_tokens:
        return "embeddings of the new tokens are trainable and would lose small updates in bfloat16"
    if cfg.trainer.precision == "16-mixed":
        return "trainer.precision=16-mixed computes matrix products in float16"
    return None


def _attention_on_gpu(cfg: TrainConfig, *, half: bool) -> Choice:
    if why := _no_flash(cfg, half=half):
        return Choice("model.attention", "sdpa", f"no FlashAttention over examples: {why}")
    name = "torch's own" if flash.kernel_name() == flash.TORCH else "flash-attn's"
    return Choice(
        "model.attention", "flash", f"no padding and no mask, examples attend by FlashAttention ({name} kernel)"
    )


def _no_flash(cfg: TrainConfig, *, half: bool) -> str | None:
    if cfg.model.padding == "kept":
        return "model.padding=kept"
    if why := _keeps_padding(cfg, by_lengths=True):
        return why
    if cfg.model.shared_prefix in ("exact", "always"):
        return f"model.shared_prefix={cfg.model.shared_prefix}"
    if not half:
        return (
            f"it computes in half precision, and this training in float32 (trainer.precision={cfg.trainer.precision})"
        )
    elsewhere = not torch.cuda.is_available()  # `estimate` of a training on another machine
    return (None if elsewhere else flash.unavailable()) or flash.unfit(_architecture(cfg))


def _architecture(cfg: TrainConfig) -> dict[str, Any]:
    """The model's ``config.json``; nothing where it has none yet (a GGUF file): then the model itself is asked later."""
    try:
        return read_config(cfg.model.path, cfg.model.revision)
    except UserError:  # loading says what is wrong
        return {}


def _attention(cfg: TrainConfig, *, half: bool) -> Choice:
    if not half:
        return Choice(
            "model.attention", "sdpa", "the fused kernel is fastest at all sequence lengths in float32 on a CPU"
        )
    if cfg.model.gradient_checkpointing:
        return Choice("model.attention", "sdpa", "gradient checkpointing must recompute a layer with the same kernel")
    return Choice(
        "model.attention",
        "by_length",
        "in bfloat16 on a CPU, eager is faster for short sequences and sdpa for long ones",
    )


def _padding(cfg: TrainConfig, *, gpu: bool, by_lengths: bool) -> Choice:
    if gpu and not by_lengths:
        return Choice(
            "model.padding", "kept", "on a GPU, only model.attention=flash and flex take a batch without padding"
        )
    if why := _keeps_padding(cfg, by_lengths=by_lengths):
        return Choice("model.padding", "kept", why)
    return Choice("model.padding", "skipped", "padding-free: a batch is one flat sequence, with attention per example")


def _keeps_padding(cfg: TrainConfig, *, by_lengths: bool) -> str | None:
    if cfg.model.attention == "eager":
        return "model.attention=eager keeps the computation of transformers"
    if cfg.model.gradient_checkpointing and not by_lengths:
        return "gradient checkpointing must recompute a layer with the same kernel"
    if cfg.trainer.strategy == "fsdp" and (not by_lengths or cfg.model.family == "seq2seq"):
        return "trainer=fsdp needs the same module calls in all processes"
    if cfg.peft.distill_from:
        return "teacher and student run on the same padded batch"
    return None


def _shared_prefix(cfg: TrainConfig, *, skipped: bool, by_lengths: bool) -> Choice:
    if cfg.model.family == "seq2seq":
        return Choice("model.shared_prefix", "off", "an encoder sees the whole input at once")
    if not skipped:
        return Choice("model.shared_prefix", "off", "padding is kept")
    if by_lengths:
        return Choice(
            "model.shared_prefix", "off", "the attention kernel attends to examples, not to a tree of their prefixes"
        )
    why = "common prefixes of a batch are computed once"
    if isinstance(cfg.peft, Lora) and cfg.peft.dropout:
        why += f", in validation only: each example has its own dropout mask (peft.dropout={cfg.peft.dropout:g})"
    return Choice("model.shared_prefix", "exact", why)


def _liger(cfg: TrainConfig, *, gpu: bool) -> Choice:
    key = "model.liger"
    if not gpu:
        return Choice(key, False, "Liger's kernels run on a CUDA GPU", brief=True)
    if cfg.trainer.strategy == "fsdp":
        return Choice(key, False, "Liger's kernels were not tried on sharded weights")
    if cfg.trainer.deterministic in (True, "warn"):
        return Choice(key, False, "trainer.deterministic: torch cannot check the kernels of another package")
    if why := liger.unavailable():
        return Choice(key, False, f"Liger's kernels: {why}")
    return Choice(key, True, "RMSNorm and gated MLPs in one kernel each (Liger), in training steps")


def _fused(cfg: TrainConfig) -> Choice:
    if cfg.trainer.strategy == "fsdp" or cfg.trainer.precision == "16-mixed":
        return Choice("optim.fused", False, "not supported with fsdp or 16-mixed")
    return Choice("optim.fused", True, "one pass over the weights instead of one per operation")
