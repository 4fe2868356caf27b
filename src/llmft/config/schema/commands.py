"""Schema of the top-level keys of the commands."""

from omegaconf import DictConfig

from llmft.config.schema.cross_field import Faults, cross_field
from llmft.config.schema.types import (
    COUNT,
    COUNT_OR_NULL,
    FLAG,
    HUB_NAME,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SIZE,
    TEXT,
    TEXT_OR_NULL,
    Rule,
    is_list,
    one_of,
)

RULES: dict[str, Rule] = {
    "seed": SEED,
    "allow_targets": Rule("a list of packages", lambda v: is_list(v)),
    "objective": TEXT,
    "baseline": FLAG,
    "resume": TEXT_OR_NULL,
    "format": one_of("text", "json"),
    "input_format": one_of("txt", "jsonl", "csv"),
    "compare": FLAG,
    "to": TEXT_OR_NULL,
    "form": Rule(
        "one of adapter, merged (onnx and gguf are not offered: docs/export.md says why)",
        lambda v: v in ("adapter", "merged"),
    ),
    "shard_size": SIZE,
    "tolerance": NOT_NEGATIVE,
    "zip": FLAG,
    "hub": Rule("owner/name, or null", lambda v: v is None or (isinstance(v, str) and bool(HUB_NAME.fullmatch(v)))),
    "private": FLAG,
    "archive": TEXT_OR_NULL,
    "restore.max_files": COUNT,
    "restore.max_size": SIZE,
    "restore.max_ratio": POSITIVE,
    "preview.rows": COUNT_OR_NULL,
    "preview.ids": FLAG,
    "replay.modules": COUNT,
    "estimate.probe": FLAG,
    "estimate.probe_steps": COUNT,
}


@cross_field("questions", "baseline")
def _questions_of_a_training(cfg: DictConfig) -> Faults:
    if isinstance(cfg.questions, bool) or not isinstance(cfg.questions, int) or cfg.questions < 0:
        yield f"questions={cfg.questions}: must be a whole number of at least 0"


@cross_field("questions", "question")
def _samples(cfg: DictConfig) -> Faults:
    if cfg.questions not in (None, "samples"):
        yield f"questions={cfg.questions}: must be samples (five built-in questions) or null"


@cross_field("compare", "run")
def _compared(cfg: DictConfig) -> Faults:
    if cfg.compare and cfg.run is None:
        yield "compare=true: compares a run with its base model; pass run=RUN"
