"""Schema of ``generation``."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field

from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.section import Absent, Section, absent
from llmft.config.schema.types import Count, FromZero, Positive, PositiveFraction, Seed
from llmft.utils.text import one_line

# Keys of the generation group that are not settings of transformers' GenerationConfig.
OURS = ("batch_size", "batch_tokens", "samples", "seed", "dtype")


class Generation(Section):
    """Settings of transformers' GenerationConfig, and batching; further keys are settings of GenerationConfig."""

    model_config = ConfigDict(extra="allow")

    max_new_tokens: Count = Field(description="Maximum tokens of an answer.")
    num_beams: Count = Field(description="Number of beams; 1 is greedy search or sampling.")
    do_sample: bool = Field(description="Sample instead of taking the most probable token.")
    repetition_penalty: Positive = Field(
        description="Above 1 repeated tokens become less probable (Keskar et al. 2019)."
    )
    no_repeat_ngram_size: FromZero = Field(description="N-grams of this size occur once in an answer; 0 is off.")
    temperature: Absent[Positive] = absent("With do_sample: below 1 the probable tokens become more probable.")
    top_p: Absent[PositiveFraction] = absent(
        "With do_sample: sample from the most probable tokens with this total probability (nucleus sampling)."
    )
    batch_size: Count = Field(description="Prompts per batch.")
    batch_tokens: Count | None = Field(
        description="Token budget of a batch, prompts and answers, instead of batch_size."
    )
    samples: Count = Field(
        description="Answers sampled per question (do_sample=true); the most frequent one is taken (self-consistency)."
    )
    seed: Seed = Field(description="Seed of the sampling.")
    dtype: Literal["auto", "float32"] = Field(
        description="auto: answer, chat, serve and samples compute in the dtype of the training, on a CUDA GPU under its "
        "autocast; float32 computes in float32 and converts a base in bfloat16, in place."
    )


@rule("generation", imports=True)
def _generation(generation: Generation) -> Faults:
    if fault := settings_fault({k: v for k, v in generation.node().items() if k not in OURS}):
        yield fault


def settings_fault(settings: Mapping[str, Any]) -> str | None:
    """Error message for settings that GenerationConfig does not know or that contradict each other; None if valid."""
    from transformers import GenerationConfig

    if unknown := [name for name in settings if name not in vars(GenerationConfig())]:
        return f"generation.{unknown[0]}: transformers' GenerationConfig has no such setting"
    try:
        GenerationConfig(**settings, pad_token_id=0).validate(strict=True)
    except ValueError as error:
        return f"generation: {one_line(error)}"
    return None
