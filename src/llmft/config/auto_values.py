"""The values that a config leaves to llmft (``auto``) -> the fastest ones that compute the same here, each with its reason."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from llmft.utils.device import bfloat16_units, runs_on_gpu

# What `auto` stands for with performance=plain, and wherever no training is settled.
PLAIN = {"model.dtype": "float32", "model.attention": "sdpa", "model.padding": "kept", "optim.fused": False}


class Choice(NamedTuple):
    """A key that was ``auto``, its value now, and why."""

    key: str
    value: Any
    why: str


def settle(cfg: Any) -> list[Choice]:
    """Put a value in the place of each ``auto`` of a training's config, so that its run directory shows and keeps them.

    The choices follow from the config and the kind of machine alone. Nothing is timed, because two runs on a machine must
    compute the same bits; benchmarks/means.py and docs/performance.md have the measurements behind the rules.

    Args:
        cfg: Of a training, checked; ``performance`` is ``auto`` or ``plain``. Changed in place.

    Returns:
        What was chosen; a key with a value of its own is the user's choice and not among them.
    """
    chosen = {key: Choice(key, value, "performance=plain") for key, value in PLAIN.items()}
    if cfg.get("performance") == "auto":  # runs of older versions have no such key
        chosen |= {choice.key: choice for choice in _choices(cfg)}
    found = [choice for key, choice in chosen.items() if OmegaConf.select(cfg, key) == "auto"]
    for choice in found:
        OmegaConf.update(cfg, choice.key, choice.value)
    return found


def _choices(cfg: Any) -> Iterator[Choice]:
    gpu = runs_on_gpu(cfg.trainer)
    dtype = _dtype(cfg, bfloat16_units(gpu=gpu))
    own = dtype.value if cfg.model.dtype == "auto" else cfg.model.dtype
    yield dtype
    yield _attention(cfg, half=own == "bfloat16" or cfg.trainer.precision == "bf16-mixed", gpu=gpu)
    yield _padding(cfg, gpu=gpu)
    yield _fused(cfg)


def _dtype(cfg: Any, units: str | None) -> Choice:
    if why := _keeps_float32(cfg):
        if units and cfg.trainer.precision == "32-true":
            why += f"; trainer.precision=bf16-mixed is faster, {units}"
        return Choice("model.dtype", "float32", why)
    if units is None:
        return Choice("model.dtype", "float32", "nothing here multiplies bfloat16 in hardware")
    return Choice("model.dtype", "bfloat16", f"of the frozen weights; what is trained stays float32; {units}")


def _keeps_float32(cfg: Any) -> str | None:
    if cfg.peft.method != "lora":
        return "what is trained would lose small updates in bfloat16"
    if cfg.peft.get("quantise"):
        return "of what is not quantised"
    if cfg.model.get("new_tokens"):
        return "rows of the embeddings are trained, and would lose small updates in bfloat16"
    if cfg.trainer.strategy == "fsdp":
        return "trainer=fsdp shares out weights of one type"
    if cfg.trainer.precision == "16-mixed":
        return "trainer.precision=16-mixed multiplies in float16"
    return None


def _attention(cfg: Any, *, half: bool, gpu: bool) -> Choice:
    if gpu or not half:
        where = "on a GPU" if gpu else "in float32 on a CPU"
        return Choice("model.attention", "sdpa", f"the fused kernel is as fast as any at all lengths {where}")
    if cfg.model.gradient_checkpointing:
        return Choice("model.attention", "sdpa", "with gradient checkpointing a layer runs twice, and must run alike")
    return Choice(
        "model.attention", "by_length", "in bfloat16 on a CPU, eager is faster for short lines and sdpa for long ones"
    )


def _padding(cfg: Any, *, gpu: bool) -> Choice:
    if why := _keeps_padding(cfg, gpu=gpu):
        return Choice("model.padding", "kept", why)
    return Choice("model.padding", "skipped", "the rows of a batch lie in one line, and each attends by itself")


def _keeps_padding(cfg: Any, *, gpu: bool) -> str | None:
    if gpu:
        return "a GPU computes lines of one length at once"
    if cfg.model.attention == "eager":
        return "model.attention=eager computes as transformers does"
    if cfg.model.gradient_checkpointing:
        return "with gradient checkpointing a layer runs twice, and must run alike"
    if cfg.trainer.strategy == "fsdp":
        return "trainer=fsdp needs the same calls in all processes"
    if cfg.peft.get("distill_from"):
        return "the teacher sees the same lines"
    return None


def _fused(cfg: Any) -> Choice:
    if cfg.trainer.strategy == "fsdp" or cfg.trainer.precision == "16-mixed":
        return Choice("optim.fused", False, "not with fsdp or 16-mixed")
    return Choice("optim.fused", True, "one pass over the weights instead of one for each operation")
