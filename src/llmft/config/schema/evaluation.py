"""Schema of ``evaluate`` and ``report``."""

from typing import Annotated, Literal

from pydantic import Field

from llmft.config.schema.generation import Generation
from llmft.config.schema.peft import Peft
from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.section import Section
from llmft.config.schema.trainer import Trainer
from llmft.config.schema.types import Count, FromZero, Must, Seeds, Text


class Evaluate(Section):
    """Evaluation on the test set: at the end of every training, and by ``evaluate``."""

    rows: Annotated[FromZero | Literal["auto"] | None, Must("auto, a whole number of at least 0, or null for all")] = (
        Field(
            description="Number of test examples, the first of the split; null for all, 0 for none. auto: so many that the "
            "answers take about a fifth of the training's time, 30 to 120; for evaluate, as many as at the end of the training."
        )
    )
    base: bool = Field(description="Evaluate the base model too, on the same examples.")
    few_shot: FromZero = Field(
        description="Evaluate the base model once more, with this many training examples in its prompt (few-shot); 0 for none."
    )
    in_training: bool = Field(
        description="Generate at every validation too, on the validation set: val/bleu, val/f1, ... can then be the objective."
    )
    resamples: Annotated[int, Field(ge=100), Must("a whole number of at least 100")] = Field(
        description="Bootstrap resamples."
    )
    dtype: Literal["auto", "float32"] = Field(
        description="auto: evaluate in the dtype of the training, on a CUDA GPU under its autocast; float32 computes in float32 "
        "and converts a base in bfloat16 for it, in place."
    )
    batch_tokens: Count = Field(description="Token budget of a batch, prompts and answers.")
    bleu_tokenizer: Literal["13a", "zh", "char", "intl"] = Field(description="Tokenizer of sacreBLEU.")
    keywords: Annotated[bool | Literal["auto"], Must("true, false or auto")] = Field(
        description="Keyword precision and recall; auto where data.metrics lists keywords."
    )
    seeds: Annotated[Seeds | None, Must("a list of seeds, or null")] = Field(
        description="[1,2,3]: sample once per seed (generation=sample); mean and standard deviation."
    )
    response_file: Annotated[Annotated[str, Field(pattern=r"^[^/\x00]+$")] | None, Must("a file name, or null")] = (
        Field(
            description="E.g. instruction-data-with-response.json: instruction, input, output, model_response of each row."
        )
    )
    retention: Annotated[Text | Literal[False], Must("off, shipped or a file")] = Field(
        description="off | shipped | FILE: general rows on which the tuned model is compared with its base (loss, KL divergence)."
    )
    retention_answers: bool = Field(
        description="Generate the tuned model's answers to them too, and list those that changed."
    )

    @property
    def limit(self) -> int | None:
        """The number of rows, None for all, once ``auto`` is resolved."""
        assert self.rows != "auto"
        return self.rows

    @property
    def retention_rows(self) -> str | None:
        """``shipped`` or a file; None if retention is off (a YAML file reads ``off`` as false)."""
        return None if self.retention in ("off", False) else str(self.retention)


class Report(Section):
    """report.html, at the end of every training and by ``report``."""

    write: bool = Field(description="Write it at the end of a training, and when evaluate has scored a run's own rows.")
    examples: FromZero = Field(description="Number of base and tuned answers shown side by side.")
    best_and_worst: FromZero = Field(description="Number of examples with the highest and lowest chrF.")
    reference_curve: Text | None = Field(
        description="A CSV file with step (or epoch) and train/loss, val/loss, ...: a published curve to draw next to this run's."
    )


@rule("evaluate.in_training", "evaluate.rows")
def _answers_in_training(evaluate: Evaluate) -> Faults:
    if evaluate.in_training and evaluate.rows == 0:
        yield "evaluate.in_training=true: needs rows to evaluate, but evaluate.rows is 0"


@rule("evaluate.retention", "evaluate.retention_answers")
def _answers_to_general_rows(evaluate: Evaluate) -> Faults:
    if evaluate.retention_answers and not evaluate.retention_rows:
        yield "evaluate.retention_answers=true: needs general rows; pass evaluate.retention=shipped too"


@rule("evaluate.retention", "run")
def _retention_of_stored_answers(evaluate: Evaluate, run: str | None) -> Faults:
    if run is None and evaluate.retention_rows:
        yield f"evaluate.retention={evaluate.retention}: compares two models, so it needs run=RUN; input=FILE has none"


@rule("evaluate.seeds", "generation.do_sample", "trainer")
def _seeds_in_training(evaluate: Evaluate, generation: Generation, trainer: Trainer) -> Faults:  # noqa: ARG001 (a key of `train`)
    yield from _seeds(evaluate, generation)


@rule("evaluate.seeds", "generation.do_sample", "run")
def _seeds_of_stored_answers(evaluate: Evaluate, generation: Generation, run: str | None) -> Faults:
    if run is None:  # a run has its own generation settings
        yield from _seeds(evaluate, generation)


@rule("evaluate.dtype", "generation.dtype", "peft.quantise", "peft.compute_dtype")
def _quantized_products(evaluate: Evaluate, generation: Generation, peft: Peft) -> Faults:
    computes = peft.select("compute_dtype")
    if peft.quantise in ("nf4", "fp4") and computes in ("bfloat16", "float16"):
        asked = {"evaluate.dtype": evaluate.dtype, "generation.dtype": generation.dtype}
        for key in (key for key, dtype in asked.items() if dtype == "float32"):
            yield f"{key}=float32: the quantized base multiplies in {computes}; use peft.compute_dtype=float32"


def _seeds(evaluate: Evaluate, generation: Generation) -> Faults:
    if evaluate.seeds and not generation.do_sample:
        yield (
            f"evaluate.seeds={evaluate.seeds}: greedy and beam search give the same answers for each seed; "
            "use generation=sample"
        )


@rule("trainer.strategy", "evaluate.in_training")
def _sharded_model(trainer: Trainer, evaluate: Evaluate) -> Faults:
    if trainer.strategy == "fsdp" and evaluate.in_training:
        yield "evaluate.in_training=true: generation needs the full model, which trainer=fsdp shards; use trainer=ddp"
