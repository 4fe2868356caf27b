"""Schema of ``export``."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from llmft.config.schema.command import Command
from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.types import HubName, Must, NotNegative, Size, Text, valid_if

ExportForm = Literal["merged", "adapter", "ctranslate2", "gguf", "onnx"]
# The quantizations that a form has.
QUANTIZATIONS: dict[str, tuple[str, ...]] = {
    "ctranslate2": ("int8", "int8_float16", "int8_bfloat16", "int16"),
    "gguf": ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0"),
}


class ExportConfig(Command):
    """Export a run's model for other tools, each form opened in its runtime and compared with the trained model."""

    writes = ("to",)

    run: Text | None = Field(description="A run directory, or latest.")
    to: Text | None = Field(
        description="A folder that does not exist yet (zip=true: the archive); several forms are subfolders of it."
    )
    form: Annotated[
        ExportForm | Annotated[list[ExportForm], Field(min_length=1)],
        Must(f"one of {', '.join(get_args(ExportForm))}, or a list of them"),
    ] = Field(
        description="merged: full weights; adapter: the LoRA adapter, a few MB; ctranslate2, gguf (llama.cpp, Ollama), onnx; "
        "or a list."
    )
    name: Text | None = Field(description="Title of the model card; null is made of data and model.")
    language: Text | None = Field(
        description="Code of the answers' language for the model card, e.g. en; null takes the base model's card."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        description="dtype of the weights; auto is the base model's."
    )
    quantize: (
        Annotated[
            str,
            valid_if(lambda v: any(v in kinds for kinds in QUANTIZATIONS.values())),
            Must(f"one of {', '.join(kind for kinds in QUANTIZATIONS.values() for kind in kinds)}"),
        ]
        | None
    ) = Field(description="Round the weights of a form that can: int8 (ctranslate2), q8_0, q4_k_m, ... (gguf).")
    shard_size: Size = Field(description="Maximum size of a weight file, e.g. 500MB.")
    tolerance: NotNegative | None = Field(
        description="Maximum difference of a logit between the trained and the exported model; null is the form's own "
        "(docs/export.md)."
    )
    max_loss_increase: NotNegative = Field(
        description="Quantized weights: maximum increase of the loss on held-out rows, nats per token."
    )
    keep: bool = Field(description="Keep an export that fails its checks, as NAME.failed.")
    require_check: bool = Field(description="Refuse an export whose runtime is not installed.")
    download: bool = Field(description="Fetch what a form needs (gguf: the source archive with the converter).")
    gguf_archive: Text | None = Field(description="The source archive of llama-cpp-python, instead of download=true.")
    gguf_adapter: bool = Field(
        description="gguf: the LoRA adapter as a file of its own beside its base, instead of merged weights."
    )
    zip: bool = Field(description="Write one archive with checksums instead of a folder; restore unpacks it.")
    hub: HubName | None = Field(description="owner/name: push to the Hugging Face Hub, with the token in HF_TOKEN.")
    private: bool = Field(description="A newly created Hub repository is visible to its owner only.")

    def forms(self) -> list[ExportForm]:
        """The forms, each once."""
        return list(dict.fromkeys([self.form] if isinstance(self.form, str) else self.form))

    def quantization_of(self, form: str) -> str | None:
        """``quantize`` if the form has it."""
        return self.quantize if self.quantize in QUANTIZATIONS.get(form, ()) else None


@rule("form", "quantize")
def _quantized(form: Any, quantize: str | None) -> Faults:
    forms = [form] if isinstance(form, str) else form
    if quantize and not any(quantize in QUANTIZATIONS.get(one, ()) for one in forms):
        has = [f"form={name} has {', '.join(kinds)}" for name, kinds in QUANTIZATIONS.items()]
        yield f"quantize={quantize}: {'; '.join(has)}"


@rule("form", "gguf_adapter")
def _adapter_file(form: Any, gguf_adapter: bool) -> Faults:
    forms = [form] if isinstance(form, str) else form
    if gguf_adapter and "gguf" not in forms:
        yield "gguf_adapter=true: needs form=gguf (form=adapter is the adapter for peft)"


@rule("form", "zip", "hub")
def _one_form(form: Any, zip: bool, hub: str | None) -> Faults:
    if not isinstance(form, str) and len(set(form)) > 1 and (zip or hub):
        yield "form: zip=true and hub= take one form at a time"


@rule("keep", "to")
def _kept_where(keep: bool, to: str | None) -> Faults:
    if keep and to is None:
        yield "keep=true: needs to=FOLDER"
