"""What works with what: the table of docs/support.md, which tests/integration/test_support_matrix.py walks through.

A cell is a ``Setting``. It is refused if a ``Refusal`` applies, not run if it needs a GPU, and tested otherwise: the walk
composes every refused setting and compares the messages, and trains every tested one.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Literal, NamedTuple

Options = Mapping[str, str]
Status = Literal["tested", "refused", "not run"]

# Option of an axis -> overrides on the command line; ``{bart}`` is a folder with a model, ``{teacher}`` one with its vocabulary.
FAMILY: Options = {
    "T5": "model=tiny_t5",
    "BART": "model=tiny_t5 model.path={bart} model.lora_targets=[q_proj,v_proj]",
    "causal": "model=tiny_llama",
}
METHOD: Options = {
    "full": "peft=none",
    "LoRA": "peft=lora",
    "DoRA": "peft=dora",
    "rsLoRA": "peft=rslora",
    "QLoRA NF4": "peft=qlora",
    "QLoRA FP4": "peft=fp4",
    "LoRA on int8": "peft=lora_8bit",
    "head": "peft=head",
    "unfreezing": "peft=unfreeze",
    "distillation": "peft=none peft.distill_from={teacher}",
}
BATCHING: Options = {
    "rows": "data.batching=rows",
    "grouped": "data.batching=grouped",
    "tokens": "data.batching=tokens",
    "packed": "data.batching=packed",
    "streaming": "data.streaming=true",
}
PRECISION: Options = {name: f"trainer.precision={name}" for name in ("32-true", "bf16-mixed", "16-mixed")}
DEVICE: Options = {
    "CPU": "trainer=cpu",
    "DDP on CPUs": "trainer=ddp trainer.accelerator=cpu",
    "FSDP on CPUs": "trainer=fsdp trainer.accelerator=cpu",
    "one GPU": "trainer=gpu",
    "DDP on GPUs": "trainer=ddp trainer.accelerator=gpu",
    "FSDP on GPUs": "trainer=fsdp trainer.accelerator=gpu",
}
OPTIMIZER: Options = {
    "AdamW": "optim=adamw",
    "8-bit AdamW": "optim=adamw_8bit",
    "paged AdamW": "optim=paged_adamw",
}
ACTIVATIONS: Options = {
    "stored": "model.gradient_checkpointing=false",
    "recomputed": "model.gradient_checkpointing=true",
}
EXPORT: Options = {
    "adapter": "form=adapter",
    "merged": "form=merged",
    "zip": "form=merged zip=true",
    "Hub": "form=merged hub=owner/name",
    "CTranslate2": "form=ctranslate2",
    "ONNX": "form=onnx",
}
PYTORCH_EXPORT = ("adapter", "merged", "zip", "Hub")
GPU = frozenset({"one GPU", "DDP on GPUs", "FSDP on GPUs"})
FSDP = frozenset({"FSDP on CPUs", "FSDP on GPUs"})
SEVERAL = FSDP | {"DDP on CPUs", "DDP on GPUs"}
ADAPTERS = frozenset({"LoRA", "DoRA", "rsLoRA", "QLoRA NF4", "QLoRA FP4", "LoRA on int8"})


class Setting(NamedTuple):
    """One option of each axis; ``export`` is empty for a training without one."""

    family: str = "causal"
    method: str = "LoRA"
    batching: str = "rows"
    precision: str = "32-true"
    device: str = "CPU"
    optimizer: str = "AdamW"
    activations: str = "stored"
    export: str = ""

    def __str__(self) -> str:
        others = [option for option, default in zip(self[2:], Setting()[2:], strict=True) if option != default]
        return " + ".join([self.family, self.method, *others])

    def overrides(self) -> str:
        """The training of this setting on the command line."""
        data = (FAMILY[self.family], METHOD[self.method], BATCHING[self.batching])
        # after trainer=, which sets a precision of its own
        return " ".join(
            (
                *data,
                DEVICE[self.device],
                PRECISION[self.precision],
                OPTIMIZER[self.optimizer],
                ACTIVATIONS[self.activations],
            )
        )


class Refusal(NamedTuple):
    """A rule of the config, or of ``export``: it applies to a setting that has one of these options on each axis named.

    Attributes:
        where: Axis -> options.
        message: The message of the refusal, complete.
    """

    where: Mapping[str, frozenset[str]]
    message: str

    def applies(self, setting: Setting) -> bool:
        return all(getattr(setting, axis) in options for axis, options in self.where.items())


REFUSALS = (
    Refusal(
        {"precision": frozenset({"16-mixed"}), "family": frozenset({"T5"})},
        "trainer.precision=16-mixed: T5 overflows in float16; use bf16-mixed or 32-true",
    ),
    Refusal(
        {"precision": frozenset({"16-mixed"}), "device": frozenset(DEVICE) - GPU},
        "trainer.precision=16-mixed: float16 needs a GPU; use bf16-mixed or 32-true",
    ),
    Refusal(
        {"precision": frozenset({"16-mixed"}), "device": FSDP},
        "trainer.precision=16-mixed: Lightning scales no gradients that trainer=fsdp shards; use bf16-mixed",
    ),
    Refusal(
        {"method": frozenset({"unfreezing"}), "device": SEVERAL},
        "peft=unfreeze: only trains in one process, but trainer.devices is 2",
    ),
    Refusal(
        {"batching": frozenset({"packed"}), "device": FSDP, "family": frozenset({"T5", "BART"})},
        "data.batching=packed: calls the encoder separately for a seq2seq model, which trainer=fsdp cannot; use tokens",
    ),
    Refusal(
        {"method": frozenset({"LoRA on int8"}), "device": FSDP},
        "peft.quantise=int8: trainer=fsdp would separate the weights from their scales; use peft=qlora, or trainer=ddp",
    ),
    Refusal(
        {"optimizer": frozenset({"8-bit AdamW", "paged AdamW"}), "device": FSDP},
        "optim: AdamW of bitsandbytes cannot update weights that trainer=fsdp shards; use optim=adamw, or trainer=ddp",
    ),
    Refusal(
        {"optimizer": frozenset({"paged AdamW"}), "device": frozenset(DEVICE) - GPU},
        "optim.paged=true: paging moves memory between a CUDA GPU and the CPU, but trainer.accelerator is cpu; "
        "use optim=adamw_8bit, or optim.fallback=true to train without paging",
    ),
    Refusal(
        {"export": frozenset({"adapter"}), "method": frozenset(METHOD) - ADAPTERS},
        "form=adapter: this run has no adapter (only LoRA runs have one); use form=merged",
    ),
)


def refusals(setting: Setting) -> list[Refusal]:
    """The rules that refuse a setting."""
    return [refusal for refusal in REFUSALS if refusal.applies(setting)]


def status(setting: Setting) -> Status:
    """Whether a setting is refused, tested, or has never run because it needs a GPU."""
    if refusals(setting):
        return "refused"
    return "not run" if setting.device in GPU else "tested"


class Table(NamedTuple):
    """A table of the page: rows and columns are labels with the options that they choose; the others are the defaults.

    Attributes:
        title: The two axes.
        rows, columns: Label -> axis -> option.
        evidence: What is asserted about the numbers, and the tests (pytest node ids) that assert it.
    """

    title: str
    rows: Mapping[str, Mapping[str, str]]
    columns: Mapping[str, Mapping[str, str]]
    evidence: Mapping[str, tuple[str, ...]] = {}

    def cell(self, row: str, column: str) -> list[Setting]:
        """The settings of a cell, one for each family."""
        return [Setting(family)._replace(**self.rows[row], **self.columns[column]) for family in FAMILY]


def axis(name: str, options: Iterable[str]) -> dict[str, dict[str, str]]:
    """Rows or columns of an axis."""
    return {option: {name: option} for option in options}


MEMORY = {
    "gradient checkpointing": {"activations": "recomputed"},
    "8-bit AdamW": {"optimizer": "8-bit AdamW"},
    "paged AdamW": {"optimizer": "paged AdamW"},
    "paged AdamW on a GPU": {"optimizer": "paged AdamW", "device": "one GPU"},
}
GUARANTEES, INTEGRATION = "tests/guarantees", "tests/integration"
RANKS = (
    f"{GUARANTEES}/test_ranks_change_nothing.py::test_ranks_change_nothing",
    f"{GUARANTEES}/test_ranks_change_nothing.py::test_sharded_weights_change_nothing",
)
TABLES = (
    Table(
        "Method and batching",
        axis("method", METHOD),
        axis("batching", BATCHING),
        {
            "the same loss for any batching, and for packed examples the same gradients": (
                f"{GUARANTEES}/test_batching_changes_nothing.py::test_batching_changes_nothing",
                f"{GUARANTEES}/test_packing_changes_nothing.py::test_packing_changes_nothing",
                f"{INTEGRATION}/models/test_quantization.py::test_packing_changes_nothing_on_a_quantized_base",
            ),
            "a stream reads every row once per epoch": (
                f"{INTEGRATION}/data/test_streaming.py::test_every_row_once_an_epoch_and_shared_out_over_processes",
            ),
            "the number of trainable parameters of each method, and the loss of distillation, by hand": (
                f"{INTEGRATION}/models/test_peft.py::test_number_of_trainable_parameters",
                f"{INTEGRATION}/models/test_distillation.py::test_the_loss_in_training_is_mixed_and_in_validation_it_is_not",
            ),
        },
    ),
    Table(
        "Method and precision",
        axis("method", METHOD),
        {
            **axis("precision", ("32-true", "bf16-mixed")),
            "16-mixed on a GPU": {"precision": "16-mixed", "device": "one GPU"},
        },
        {
            "trainable parameters stay in float32": (
                f"{GUARANTEES}/test_speed_changes_no_number.py::test_a_frozen_base_in_bfloat16_leaves_what_is_trained_in_float32",
                f"{GUARANTEES}/test_training_is_in_train_mode.py::test_a_bf16_checkpoint_is_trained_in_float32",
            ),
        },
    ),
    Table(
        "Method and device",
        axis("method", METHOD),
        axis("device", DEVICE),
        {"two processes compute what one does, and resume exactly": RANKS},
    ),
    Table(
        "Batching and device",
        axis("batching", BATCHING),
        axis("device", DEVICE),
        {"two processes compute what one does, packed and streamed too": RANKS},
    ),
    Table("Batching and precision", axis("batching", BATCHING), axis("precision", PRECISION)),
    Table(
        "Method and memory",
        axis("method", METHOD),
        MEMORY,
        {
            "gradient checkpointing changes no gradient, in 8-bit AdamW only the rounding of its state differs": (
                f"{GUARANTEES}/test_training_is_in_train_mode.py::test_gradient_checkpointing_keeps_less_and_changes_no_gradient",
                f"{INTEGRATION}/models/test_optimizers.py::test_32_bits_are_adamw_and_8_bits_nearly",
            ),
        },
    ),
    Table("Batching and memory", axis("batching", BATCHING), {name: MEMORY[name] for name in list(MEMORY)[:2]}),
    Table("Device and memory", axis("device", DEVICE), {name: MEMORY[name] for name in list(MEMORY)[:3]}),
    Table("Precision and device", axis("precision", PRECISION), axis("device", DEVICE)),
    Table(
        "Method and export",
        axis("method", METHOD),
        axis("export", PYTORCH_EXPORT),
        {
            "the exported model has the logits of the trained one": (
                f"{GUARANTEES}/test_the_exported_model_is_the_trained_one.py::test_merged_weights_give_the_adapters_logits",
                f"{GUARANTEES}/test_the_exported_model_is_the_trained_one.py"
                "::test_an_adapter_of_a_quantized_base_merges_into_full_precision",
            ),
            "archives come back, uploads (to a local stand-in for the Hub) are complete": (
                f"{INTEGRATION}/commands/test_export.py::test_the_adapter_alone_and_an_archive_that_comes_back",
                f"{INTEGRATION}/commands/test_export.py::test_a_command_pushes_what_it_checked",
            ),
        },
    ),
    Table("Device and export", axis("device", DEVICE), axis("export", PYTORCH_EXPORT)),
    Table(
        "Form of an export and method",
        axis("export", ("merged", "adapter", "CTranslate2", "ONNX")),
        axis("method", ("full", "LoRA")),
        {
            "each form is compared with the trained model in its runtime, and planted faults are caught": (
                f"{GUARANTEES}/test_an_export_is_compared_with_the_trained_model.py::test_a_planted_fault_is_caught",
            ),
            "the architectures of CTranslate2": (
                f"{INTEGRATION}/export/test_ctranslate2.py::test_each_architecture_gives_the_logits_and_answers_of_transformers",
            ),
            "GGUF needs llama.cpp's converter, and is tested by itself": (
                f"{INTEGRATION}/export/test_gguf.py::test_llama_cpp_gives_the_trained_model",
            ),
        },
    ),
)


def settings() -> list[Setting]:
    """Every setting of the tables, once."""
    cells = (table.cell(row, column) for table in TABLES for row, column in product(table.rows, table.columns))
    return list(dict.fromkeys(setting for cell in cells for setting in cell))
