"""Schema of ``data``: sources, truncation, splits and batching."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from llmft.config.schema.cross_field import Faults, cross_field
from llmft.config.schema.types import (
    COUNT,
    COUNT_OR_NULL,
    FLAG,
    FROM_ZERO,
    NAME,
    NAMES,
    SHARE,
    TEXT,
    TEXT_OR_NULL,
    Rule,
    is_list,
    is_text_list,
    one_of,
)


def _mappings(value: Any, key: str) -> bool:
    return is_list(value) and all(isinstance(entry, Mapping | DictConfig) and key in entry for entry in value)


def _metrics(value: Any) -> bool:
    return is_list(value) and all(entry == "keywords" or _mappings([entry], "_target_") for entry in value)


def _digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


RULES: dict[str, Rule] = {
    "data.path": Rule("a string, a list of files, or null", lambda v: TEXT_OR_NULL.accepts(v) or is_text_list(v)),
    "data.sha256": Rule("a SHA-256 (64 hexadecimal digits) or null", lambda v: v is None or _digest(v)),
    "data.revision": TEXT_OR_NULL,
    "data.subset": TEXT_OR_NULL,
    "data.hub_split": TEXT,
    "data.system": TEXT_OR_NULL,
    "data.batch_size": COUNT,
    "data.limit": COUNT_OR_NULL,
    "data.max_prompt_tokens": COUNT,
    "data.max_answer_tokens": COUNT,
    "data.too_long": one_of("error", "drop", "trim_prompt", "trim_answer"),
    "data.invalid": one_of("error", "drop"),
    "data.duplicates": one_of("keep", "drop", "error"),
    "data.leakage": one_of("warn", "drop", "error"),
    "data.cache": Rule("off, a folder, or null for llmft's own", lambda v: v is None or v is False or TEXT.accepts(v)),
    "data.processes": COUNT_OR_NULL,
    "data.split.train": Rule(
        "a number from 0 to 1, or null for the remaining rows", lambda v: v is None or SHARE.accepts(v)
    ),
    "data.split.val": SHARE,
    "data.split.test": SHARE,
    "data.split_by": one_of("shuffle", "position"),
    "data.shuffle": FLAG,
    "data.batching": one_of("rows", "grouped", "tokens", "packed"),
    "data.tokens_per_batch": COUNT,
    "data.pack_tokens": COUNT_OR_NULL,
    "data.num_workers": FROM_ZERO,
    "data.streaming": FLAG,
    "data.stream_buffer": COUNT,
    "data.stream_held_out": COUNT,
    "data.train_on": one_of("answer", "all"),
    "data.train_on_turns": one_of("last", "all"),
    "data.name": NAME,
    "data.metrics": Rule("a list of keywords and {_target_: yourpackage.your_metric}", _metrics),
    "data.notice": TEXT_OR_NULL,
    "data.fields": NAMES,
    "data.questions": Rule("a list of {question: ..., input: ..., system: ...}", lambda v: _mappings(v, "question")),
}


@cross_field("data.split.train", "data.split.val", "data.split.test")
def _shares(cfg: DictConfig) -> Faults:
    split = cfg.data.split
    if (split.train or 0) + split.val + split.test > 1 + 1e-9:
        shares = f"train {split.train}, val {split.val}, test {split.test}"
        yield f"data.split: the fractions add up to more than 1: {shares}; data.split.train=null takes the rest"


@cross_field("data.train_on", "model.family")
def _seq2seq_answers(cfg: DictConfig) -> Faults:
    if cfg.data.train_on == "all" and cfg.model.family == "seq2seq":
        yield "data.train_on=all: a seq2seq model can only train on the answer; use data.train_on=answer"


@cross_field("data.streaming", "data.name", "trainer.max_steps")
def _stream(cfg: DictConfig) -> Faults:
    if not cfg.data.streaming:
        return
    if cfg.trainer.max_steps == -1:
        yield "data.streaming=true: the length of an epoch is not known in advance; set trainer.max_steps"
    if "sets" in cfg.data:
        yield "data.streaming=true: a mix of data sets cannot be streamed; use one data set, or streaming=false"


@cross_field("data.path", "data.split")
def _no_rows(cfg: DictConfig) -> Faults:
    if cfg.data.path is None:
        yield "data.path=None: must be a string; data.path=sample for the shipped rows"
