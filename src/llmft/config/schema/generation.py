"""Schema of ``generation``, ``chat``, ``serve`` and ``safety``."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from llmft.config.schema.cross_field import Faults, cross_field
from llmft.config.schema.types import (
    COUNT,
    COUNT_OR_NULL,
    ENVIRONMENT,
    FLAG,
    FROM_ZERO,
    NAMES,
    POSITIVE,
    SEED,
    TEXT,
    TEXT_OR_NULL,
    Rule,
    is_int,
)
from llmft.utils.text import one_line

# Keys of the generation group that are not settings of transformers' GenerationConfig.
OURS = ("batch_size", "batch_tokens", "samples", "seed")

RULES: dict[str, Rule] = {
    "system": TEXT_OR_NULL,
    "chat.compare": FLAG,
    "chat.max_prompt_tokens": COUNT,
    "serve.host": TEXT,
    "serve.port": Rule("a whole number from 0 to 65535", lambda v: is_int(v) and 0 <= v < 2**16),
    "serve.name": TEXT_OR_NULL,
    "serve.base": FLAG,
    "serve.page": FLAG,
    "serve.key_env": ENVIRONMENT,
    "serve.allow_no_key": FLAG,
    "serve.hosts": NAMES,
    "serve.origins": NAMES,
    "serve.max_batch": COUNT,
    "serve.max_waiting": FROM_ZERO,
    "serve.max_choices": COUNT,
    "serve.max_body_bytes": COUNT,
    "serve.max_prompt_tokens": COUNT,
    "serve.max_answer_tokens": COUNT,
    "serve.max_seconds": POSITIVE,
    "serve.body_seconds": POSITIVE,
    "serve.shutdown_seconds": FROM_ZERO,
    "serve.log_prompts": FLAG,
    "safety.blocked": NAMES,
    "safety.max_question_characters": COUNT_OR_NULL,
    "safety.max_answer_characters": COUNT_OR_NULL,
    "safety.notice": TEXT_OR_NULL,
    "safety.notice_link": TEXT_OR_NULL,
    "safety.notice_words": NAMES,
    "generation.max_new_tokens": COUNT,
    "generation.num_beams": COUNT,
    "generation.batch_size": COUNT,
    "generation.batch_tokens": COUNT_OR_NULL,
    "generation.samples": COUNT,
    "generation.do_sample": FLAG,
    "generation.seed": SEED,
    "generation.temperature": POSITIVE,
    "generation.top_p": Rule("a number above 0, up to 1", lambda v: POSITIVE.accepts(v) and v <= 1),
    "generation.repetition_penalty": POSITIVE,
    "generation.no_repeat_ngram_size": FROM_ZERO,
}


@cross_field("generation", imports=True)
def _generation(cfg: DictConfig) -> Faults:
    if fault := settings_fault({k: v for k, v in cfg.generation.items() if k not in OURS}):
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
