"""Schema of ``peft``: which parameters are trained."""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llmft.config.schema.model import BY_LENGTHS, Model
from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.section import Section, absent
from llmft.config.schema.trainer import Trainer
from llmft.config.schema.types import (
    BelowOne,
    Count,
    LearningRate,
    Must,
    Name,
    Positive,
    PositiveFraction,
    Text,
    valid_if,
)

Quantization = Annotated[Literal["nf4", "fp4", "int8"] | None, Must("nf4, fp4, int8 or null")]


class Peft(Section):
    """Which parameters are trained, and distillation from a teacher."""

    name: Name = Field(description="Name of the method; part of the run directory's name.")
    method: Literal["none", "lora", "head", "unfreeze"] = Field(
        description="none trains all parameters, lora adapters, head the LM head, unfreeze the blocks gradually."
    )
    default_lr: LearningRate = Field(description="Learning rate of this method, unless optim.lr is set.")
    distill_from: Text | None = Field(
        description="Teacher with the same vocabulary: a name of model=, a folder or a Hub id."
    )
    distill_weight: PositiveFraction = Field(description="Weight of the distillation loss; the labels get the rest.")
    distill_temperature: Positive = Field(description="Above 1 the teacher's less likely tokens count for more.")
    quantise: Quantization = absent("Quantize the frozen weights: nf4, fp4 or int8.")


class Lora(Peft):
    """LoRA and its variants, on full-precision or quantized weights."""

    r: Count = Field(description="Rank of the LoRA matrices.")
    alpha: Positive = Field(description="LoRA scale: updates are multiplied by alpha / r.")
    dropout: BelowOne = Field(description="Dropout rate on the input of the LoRA matrices.")
    targets: Annotated[
        Text | Annotated[list[Text], Field(min_length=1)], Must("auto, all-linear or a list of names")
    ] = Field(description="Adapted layers: auto (model.lora_targets), all-linear, or [names].")
    dora: bool = Field(description="Train direction and magnitude of each weight separately (Liu et al. 2024).")
    rslora: bool = Field(description="Scale by alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023).")
    adapter: Text | None = Field(
        description="A run, or a folder with an adapter of the same r, alpha and targets: continue training it."
    )
    quantise: Quantization = Field(description="Quantize the frozen weights: nf4, fp4 or int8.")
    double_quant: bool = Field(description="With nf4 and fp4: quantize the scales too.")
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        description="dtype of the matrix products with nf4 and fp4: auto (by machine), float32, bfloat16 or float16."
    )


def _rising(value: Any) -> bool:
    """Pairs of start (the first is 0) and number of unfrozen blocks, both strictly increasing; the last may be all."""
    starts, blocks = zip(*value, strict=True)
    counted = blocks[:-1] if blocks[-1] == "all" else blocks
    if not all(isinstance(number, int) for number in counted):
        return False
    rising = [all(a < b for a, b in pairwise(row)) for row in (starts, counted)]
    return all(rising) and starts[0] == 0 and min(counted, default=0) >= 0


Stage = Annotated[list[Annotated[int, Field(ge=0)] | Literal["all"]], Field(min_length=2, max_length=2)]


class Unfreeze(Peft):
    """Gradual unfreezing (Howard and Ruder 2018)."""

    unit: Literal["epoch", "step"] = Field(description="Whether the schedule counts epochs or optimizer steps.")
    schedule: Annotated[
        list[Stage],
        Field(min_length=1),
        valid_if(_rising),
        Must("a list of [start, blocks], the first start 0, both increasing; the last blocks may be all"),
    ] = Field(description="[start, number of blocks from the top]; all includes the embeddings.")


def _kind(peft: Any) -> str:
    """The class of a peft section: by the keys that only one method has."""
    keys = peft if isinstance(peft, dict) else {}
    return "<lora>" if "r" in keys else "<unfreeze>" if "schedule" in keys else "<peft>"


AnyPeft = Annotated[
    Annotated[Peft, Tag("<peft>")] | Annotated[Lora, Tag("<lora>")] | Annotated[Unfreeze, Tag("<unfreeze>")],
    Discriminator(_kind),
]


@rule("peft.method")
def _keys_of_the_method(peft: Peft) -> Faults:
    needs = {"lora": Lora, "unfreeze": Unfreeze}.get(peft.method)
    if needs and not isinstance(peft, needs):
        yield f"peft.method={peft.method}: the keys of this method are missing; use peft={peft.method}"


@rule("model.dtype", "peft.method", "model.new_tokens")
def _half_weights(model: Model, peft: Peft) -> Faults:
    if model.dtype in ("auto", "float32"):
        return
    if peft.method != "lora":
        trained = "full fine-tuning" if peft.method == "none" else f"peft={peft.name}"
        yield f"model.dtype={model.dtype}: would lose small updates with {trained}; use float32"
    elif model.new_tokens:
        yield f"model.dtype={model.dtype}: would lose small updates of model.new_tokens; use float32"


@rule("peft.method", "peft.quantise")
def _quantized_weights_are_frozen(peft: Peft) -> Faults:
    if peft.quantise and peft.method != "lora":
        yield (
            f"peft.quantise={peft.quantise}: quantized weights cannot be trained, but peft.method={peft.method} "
            "would train them; use peft=qlora or peft=lora_8bit, or no peft.quantise"
        )


@rule("peft.compute_dtype", "peft.quantise", "trainer.accelerator", machine=True)
def _products_here(peft: Peft, trainer: Trainer) -> Faults:
    dtype = peft.select("compute_dtype")
    if dtype not in ("float16", "bfloat16") or not peft.quantise:
        return
    from llmft.utils.device import accelerator_of, lacks_bfloat16  # imports torch

    if dtype == "float16" and accelerator_of(trainer) == "cpu":
        yield "peft.compute_dtype=float16: needs a GPU; use bfloat16 or float32"
    if dtype == "bfloat16" and (why := lacks_bfloat16(trainer)):
        yield f"peft.compute_dtype=bfloat16: {why}; use float16 (not for T5) or float32"


@rule("model.new_tokens", "peft.method")
def _new_tokens_without_their_embeddings(model: Model, peft: Peft) -> Faults:
    if model.new_tokens and peft.method == "head":
        yield "model.new_tokens: their embeddings must be trained, but peft=head only trains the head"


@rule("model.new_tokens", "peft.schedule")
def _new_tokens_never_unfrozen(model: Model, peft: Peft) -> Faults:
    if model.new_tokens and isinstance(peft, Unfreeze) and peft.schedule[-1][1] != "all":
        yield "model.new_tokens: their embeddings must be trained, but peft.schedule does not end with all"


@rule("peft.distill_from", "model.attention")
def _padded_for_the_teacher(peft: Peft, model: Model) -> Faults:
    if peft.distill_from is not None and model.attention in BY_LENGTHS:
        reason = "with peft.distill_from, teacher and student run on the same padded batch; use sdpa"
        yield f"model.attention={model.attention}: {reason}"


@rule("peft.distill_from", "model.path", "model.name")
def _own_teacher(peft: Peft, model: Model) -> Faults:
    if peft.distill_from is not None and peft.distill_from in (model.path, model.name):
        yield f"peft.distill_from={peft.distill_from}: is the student itself; use a larger model with the same vocabulary"


@rule("peft.method", "trainer.devices")
def _unfreezing_in_one_process(peft: Peft, trainer: Trainer) -> Faults:
    if peft.method == "unfreeze" and trainer.devices != 1:
        # DDP fixes the set of parameters that it reduces when it wraps the model
        yield f"peft=unfreeze: only trains in one process, but trainer.devices is {trainer.devices}"


@rule("trainer.strategy", "peft.quantise")
def _sharded_int8(trainer: Trainer, peft: Peft) -> Faults:
    if trainer.strategy == "fsdp" and peft.quantise == "int8":
        # bitsandbytes keeps the scales on the Int8Params object, which fully_shard replaces
        yield (
            "peft.quantise=int8: trainer=fsdp would separate the weights from their scales; "
            "use peft=qlora, or trainer=ddp"
        )
