"""Schema of ``performance``, ``model``, ``prompt`` and ``peft``."""

from itertools import pairwise
from typing import Any

from omegaconf import DictConfig

from llmft.config.schema.cross_field import Faults, cross_field
from llmft.config.schema.types import (
    COUNT,
    DROPOUT,
    FLAG,
    NAME,
    POSITIVE,
    TEXT,
    TEXT_OR_NULL,
    Rule,
    is_int,
    is_list,
    is_text_list,
    one_of,
)


def _stages(value: Any) -> bool:
    """Gradual unfreezing: pairs of start (the first is 0) and number of unfrozen blocks, both strictly increasing."""
    if not (is_list(value) and value and all(is_list(pair) and len(pair) == 2 for pair in value)):
        return False
    starts, blocks = zip(*value, strict=True)
    counted = blocks[:-1] if blocks[-1] == "all" else blocks
    rising = [all(a < b for a, b in pairwise(row)) for row in (starts, counted)]
    return all(map(is_int, (*starts, *counted))) and all(rising) and starts[0] == 0 and min(counted, default=0) >= 0


RULES: dict[str, Rule] = {
    "performance": one_of("auto", "plain"),
    "model.name": NAME,
    "peft.name": NAME,
    "model.family": one_of("seq2seq", "causal"),
    "model.path": TEXT,
    "model.dropout": Rule("a number from 0 to below 1, or null", lambda v: v is None or DROPOUT.accepts(v)),
    "model.new_tokens": Rule("a list of strings", lambda v: is_list(v) and all(map(TEXT.accepts, v))),
    "model.lora_targets": Rule("a list of names", lambda v: is_text_list(v)),
    "model.gguf_file": TEXT_OR_NULL,
    "model.source_language": TEXT_OR_NULL,
    "model.target_language": TEXT_OR_NULL,
    "model.dtype": Rule(
        "one of auto, float32, bfloat16 (T5 overflows in float16, and so do gradients of all models)",
        lambda v: v in ("auto", "float32", "bfloat16"),
    ),
    "model.trust_remote_code": FLAG,
    "model.attention": one_of("auto", "sdpa", "eager", "by_length"),
    "model.padding": one_of("auto", "skipped", "kept"),
    "model.gradient_checkpointing": FLAG,
    "peft.method": one_of("none", "lora", "head", "unfreeze"),
    "peft.targets": Rule("auto, all-linear or a list of names", lambda v: TEXT.accepts(v) or is_text_list(v)),
    "peft.r": COUNT,
    "peft.alpha": POSITIVE,
    "peft.dropout": DROPOUT,
    "peft.dora": FLAG,
    "peft.rslora": FLAG,
    "peft.adapter": TEXT_OR_NULL,
    "peft.quantise": Rule("nf4, fp4, int8 or null", lambda v: v in (None, "nf4", "fp4", "int8")),
    "peft.double_quant": FLAG,
    "peft.compute_dtype": one_of("float32", "bfloat16"),
    "peft.unit": one_of("epoch", "step"),
    "peft.schedule": Rule(
        "a list of [start, blocks], the first start 0, both increasing; the last blocks may be all",
        lambda v: _stages(v),
    ),
    "peft.distill_from": TEXT_OR_NULL,
    "peft.distill_weight": Rule("a number above 0, up to 1", lambda v: POSITIVE.accepts(v) and v <= 1),
    "peft.distill_temperature": POSITIVE,
}


@cross_field("prompt.name", "prompt.template")
def _unused_template(cfg: DictConfig) -> Faults:
    if cfg.prompt.name == "auto" and cfg.prompt.template is not None:
        yield "prompt.template: is ignored by prompt=auto; use prompt=plain with it"


@cross_field("model.family", "model._target_")
def _family(cfg: DictConfig) -> Faults:
    if not str(cfg.model._target_).lower().removesuffix("forward").endswith(f".{cfg.model.family}"):
        yield f"model.family={cfg.model.family}: does not match {cfg.model._target_}"


@cross_field("model.dtype", "peft.method", "model.new_tokens")
def _half_weights(cfg: DictConfig) -> Faults:
    if cfg.model.dtype in ("auto", "float32"):
        return
    if cfg.peft.method != "lora":
        trained = "full fine-tuning" if cfg.peft.method == "none" else f"peft={cfg.peft.name}"
        yield f"model.dtype={cfg.model.dtype}: would lose small updates with {trained}; use float32"
    elif cfg.model.new_tokens:
        yield f"model.dtype={cfg.model.dtype}: would lose small updates of model.new_tokens; use float32"


@cross_field("model.padding", "model.gradient_checkpointing", "trainer.strategy")
def _padding_skipped(cfg: DictConfig) -> Faults:
    if cfg.model.padding == "skipped" and cfg.model.gradient_checkpointing:
        yield "model.padding=skipped: model.gradient_checkpointing must recompute a layer with the same kernel; use kept"
    if cfg.model.padding == "skipped" and cfg.trainer.strategy == "fsdp":
        yield "model.padding=skipped: trainer=fsdp needs the same module calls in all processes; use kept"


@cross_field("model.attention", "model.gradient_checkpointing")
def _runs_alike_twice(cfg: DictConfig) -> Faults:
    if cfg.model.attention == "by_length" and cfg.model.gradient_checkpointing:
        yield "model.attention=by_length: model.gradient_checkpointing must recompute a layer with the same kernel; use sdpa"


@cross_field("peft.method", "peft.quantise")
def _quantised_weights_are_frozen(cfg: DictConfig) -> Faults:
    if cfg.peft.quantise and cfg.peft.method != "lora":
        yield (
            f"peft.quantise={cfg.peft.quantise}: quantized weights cannot be trained, but peft.method={cfg.peft.method} "
            "would train them; use peft=qlora or peft=lora_8bit, or no peft.quantise"
        )


@cross_field("model.new_tokens", "peft.method")
def _new_tokens_without_their_embeddings(cfg: DictConfig) -> Faults:
    if cfg.model.new_tokens and cfg.peft.method == "head":
        yield "model.new_tokens: their embeddings must be trained, but peft=head only trains the head"


@cross_field("model.new_tokens", "peft.schedule")
def _new_tokens_never_unfrozen(cfg: DictConfig) -> Faults:
    if cfg.model.new_tokens and cfg.peft.schedule[-1][1] != "all":
        yield "model.new_tokens: their embeddings must be trained, but peft.schedule does not end with all"


@cross_field("peft.distill_from", "model.path", "model.name")
def _own_teacher(cfg: DictConfig) -> Faults:
    if cfg.peft.distill_from == cfg.model.path or cfg.peft.distill_from == cfg.model.name:
        yield f"peft.distill_from={cfg.peft.distill_from}: is the student itself; use a larger model with the same vocabulary"
