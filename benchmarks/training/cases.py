"""The cases of the benchmark, each with the trainings (sides) that it compares."""

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Side:
    """One training of a case.

    Attributes:
        name: Label in the table.
        of: ``llmft``, ``trl``, ``transformers`` or ``unsloth``.
        overrides: Overrides of llmft's command line.
        arguments: Arguments of the peer's config class.
        dtype: Dtype in which a peer loads its weights.
        attention: Attention implementation of a peer on a CPU; on a GPU it is SDPA, or FlashAttention where ``best``.
        ceiling: Dtype of the matrix products that are its ceiling; on a GPU it is the precision of the training too.
        best: Whether a peer takes what is fastest on the machine: on a GPU FlashAttention with padding-free batches and Liger kernels,
            where they are installed; float32 and SDPA on a CPU that does not multiply bfloat16 (``fitted``).
    """

    name: str
    of: str = "llmft"
    overrides: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    attention: str = "sdpa"
    ceiling: str = "float32"
    best: bool = False


@dataclass(frozen=True)
class Case:
    """Trainings with the same model, examples, adapter and optimizer.

    Attributes:
        title: Title of its table.
        data: The data set.
        model: The backbone; on a GPU ``gpu_model`` is used instead.
        peft: Option of llmft's ``peft`` group.
        sides: The trainings, llmft first.
        same: Whether all sides see the same batches in the same order, so that their losses must agree.
        gpu_model: The backbone on a GPU.
        words: Words of each generated row, fewest and most; None for rows of the data set.
        gpu_only: Whether it is left out on a CPU, where it would take hours.
        optional: Whether a side that cannot start leaves its reason in the table's place, and is no error.
    """

    title: str
    data: str
    model: str
    peft: str
    sides: tuple[Side, ...]
    same: bool = False
    gpu_model: str | None = None
    words: tuple[int, int] | None = None
    gpu_only: bool = False
    optional: bool = False


# performance=auto chooses the rest; float32 where both sides must have the same precision
IN_ORDER = ("data.shuffle=false", "data.batching=rows", "model.dtype=float32")
GROUPED = ("data.batching=grouped",)
# about as many examples per batch as the other sides
PACKED = ("data.batching=packed", "data.batch_size=4")
BF16 = {"bf16": True}
LENGTHS = {"train_sampling_strategy": "group_by_length"}
SEQUENTIAL = {"train_sampling_strategy": "sequential"}
# SFTConfig's defaults: bfloat16 autocast and gradient checkpointing, on a CPU too; examples in random order, SDPA, and weights in the
# checkpoint's dtype, which is float32 here. runner and peers set batch size, learning rate, clipping and dropout.
AS_IT_COMES = {"bf16": None, "gradient_checkpointing": True}
# performance=auto never chooses autocast: it changes what full fine-tuning computes
MIXED = (*GROUPED, "trainer.precision=bf16-mixed")
# sequences of 4,096 tokens, on both sides; the 8B shape of Llama 3
LONG_PACKS = ("data.batching=packed", "data.pack_tokens=4096", "data.batch_size=1")
LONG_PACKS_TRL = {"packing": True, "max_length": 4096, "per_device_train_batch_size": 1}

CASES = {
    "causal_lora": Case(
        "Causal, LoRA, the same batches in float32", "alpaca", "smollm2_135m", "lora", same=True, gpu_model="gpt2_medium_shape",
        sides=(Side("llmft", overrides=IN_ORDER), Side("TRL", "trl", arguments=SEQUENTIAL)),
    ),
    "causal_lora_best": Case(
        "Causal, LoRA, best settings of each", "alpaca", "smollm2_135m", "lora", gpu_model="tinyllama_shape",
        sides=(
            Side("llmft", overrides=GROUPED, ceiling="bfloat16"),
            Side("TRL, by length", "trl", arguments=BF16 | LENGTHS, dtype="bfloat16", attention="eager", ceiling="bfloat16", best=True),
        ),
    ),
    "causal_lora_chat": Case(
        "Causal, LoRA, a chat template, best settings of each", "psychology", "smollm2_135m", "lora", gpu_model="tinyllama_shape",
        sides=(
            Side("llmft", overrides=GROUPED, ceiling="bfloat16"),
            Side("TRL, by length", "trl", arguments=BF16 | LENGTHS, dtype="bfloat16", attention="eager", ceiling="bfloat16", best=True),
        ),
    ),
    "causal_lora_default": Case(
        "Causal, LoRA, default settings", "alpaca", "smollm2_135m", "lora", gpu_model="gpt2_medium_shape",
        sides=(
            Side("llmft", ceiling="bfloat16"),
            Side("TRL, its defaults", "trl", arguments=AS_IT_COMES, ceiling="bfloat16"),
            Side("TRL, float32, no checkpointing", "trl"),
        ),
    ),
    "causal_full": Case(
        "Causal, full fine-tuning, the same batches in float32", "alpaca", "smollm2_135m", "none", same=True, gpu_model="gpt2_medium_shape",
        sides=(Side("llmft", overrides=IN_ORDER), Side("TRL", "trl", arguments=SEQUENTIAL)),
    ),
    "causal_full_best": Case(
        "Causal, full fine-tuning, best settings of each", "alpaca", "smollm2_135m", "none", gpu_model="gpt2_medium_shape",
        sides=(
            Side("llmft", overrides=MIXED, ceiling="bfloat16"),
            Side("TRL, by length", "trl", arguments=BF16 | LENGTHS, attention="eager", ceiling="bfloat16", best=True),
        ),
    ),
    "seq2seq": Case(
        "Seq2seq, full fine-tuning, the same batches in float32", "openorca", "flan_t5_small_shape", "none", same=True,
        sides=(Side("llmft", overrides=IN_ORDER), Side("Seq2SeqTrainer", "transformers", arguments=SEQUENTIAL)),
    ),
    "seq2seq_default": Case(
        "Seq2seq, full fine-tuning, default settings", "openorca", "flan_t5_small_shape", "none",
        sides=(Side("llmft"), Side("Seq2SeqTrainer, its defaults", "transformers")),
    ),
    "seq2seq_best": Case(
        "Seq2seq, full fine-tuning, best settings of each", "openorca", "flan_t5_small_shape", "none",
        sides=(
            Side("llmft", overrides=MIXED, ceiling="bfloat16"),
            Side("Seq2SeqTrainer, by length", "transformers", arguments=BF16 | LENGTHS, ceiling="bfloat16", best=True),
        ),
    ),
    "packing_causal": Case(
        "Packing against length grouping, causal, LoRA", "openorca", "smollm2_135m", "lora", gpu_model="tinyllama_shape",
        sides=(
            Side("llmft, packed", overrides=PACKED, ceiling="bfloat16"),
            Side("llmft, grouped", overrides=GROUPED, ceiling="bfloat16"),
        ),
    ),
    "packed_8b": Case(
        "Causal, LoRA, packed, the shape of Llama 3 8B at 4,096 tokens", "alpaca", "llama3_8b_shape", "lora", words=(40, 110), gpu_only=True,
        sides=(
            Side("llmft", overrides=LONG_PACKS, ceiling="bfloat16"),
            Side("TRL, packed", "trl", arguments=BF16 | LONG_PACKS_TRL, dtype="bfloat16", ceiling="bfloat16", best=True),
        ),
    ),
    "packing_gpu": Case(
        "Packing against length grouping, causal, LoRA, generated rows of 100 to 550 tokens", "alpaca", "tinyllama_shape", "lora",
        words=(10, 170), gpu_only=True,
        sides=(
            Side("llmft, packed", overrides=PACKED, ceiling="bfloat16"),
            Side("llmft, grouped", overrides=GROUPED, ceiling="bfloat16"),
        ),
    ),
    "compile_8b": Case(
        "torch.compile, LoRA, packed, the shape of Llama 3 8B at 4,096 tokens", "alpaca", "llama3_8b_shape", "lora", words=(40, 110),
        gpu_only=True,
        sides=(
            Side("llmft, compiled", overrides=(*LONG_PACKS, "model.compile=true"), ceiling="bfloat16"),
            Side("llmft", overrides=LONG_PACKS, ceiling="bfloat16"),
        ),
    ),
    "unsloth_8b": Case(
        "Unsloth: causal, LoRA, packed, the shape of Llama 3 8B at 4,096 tokens", "alpaca", "llama3_8b_shape", "lora", words=(40, 110),
        gpu_only=True, optional=True,
        sides=(
            Side("llmft", overrides=LONG_PACKS, ceiling="bfloat16"),
            Side("Unsloth, packed", "unsloth", arguments=BF16 | LONG_PACKS_TRL, dtype="bfloat16", ceiling="bfloat16"),
        ),
    ),
    "qlora_8b": Case(
        "QLoRA against LoRA, packed, the shape of Llama 3 8B at 4,096 tokens", "alpaca", "llama3_8b_shape", "lora", words=(40, 110),
        gpu_only=True,
        sides=(
            Side("llmft, QLoRA", overrides=(*LONG_PACKS, "peft=qlora"), ceiling="bfloat16"),
            Side("llmft, LoRA", overrides=LONG_PACKS, ceiling="bfloat16"),
        ),
    ),
    "packing_seq2seq": Case(
        "Packing against length grouping, seq2seq, full", "openorca", "flan_t5_small_shape", "none",
        sides=(Side("llmft, packed", overrides=PACKED), Side("llmft, grouped", overrides=GROUPED)),
    ),
    "qlora": Case(
        "QLoRA against LoRA, examples in the same order, in float32", "alpaca", "smollm2_135m", "lora", gpu_model="tinyllama_shape",
        sides=(Side("llmft, QLoRA", overrides=(*IN_ORDER, "peft=qlora")), Side("llmft, LoRA", overrides=IN_ORDER)),
    ),
}  # fmt: skip


def fitted(case: Case, *, multiplies_bfloat16: bool) -> Case:
    """The case for a machine: without units for bfloat16, float32 is what is fastest for all sides."""
    if multiplies_bfloat16:
        return case
    if not any(side.best for side in case.sides):
        return replace(case, sides=tuple(replace(side, ceiling="float32") for side in case.sides))
    return replace(case, sides=tuple(_in_float32(side) for side in case.sides))


def _in_float32(side: Side) -> Side:
    overrides = tuple(one for one in side.overrides if one != "trainer.precision=bf16-mixed")
    arguments = {name: value for name, value in side.arguments.items() if name != "bf16"}
    return replace(side, overrides=overrides, arguments=arguments, dtype="float32", attention="sdpa", ceiling="float32")
