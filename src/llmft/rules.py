"""What the value of each key must be, in words and as a test."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What a value must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _texts(value: Any) -> bool:
    return _list(value) and len(value) > 0 and all(map(TEXT.holds, value))


def _digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _stages(value: Any) -> bool:
    """Gradual unfreezing: pairs of when (0 first) and how many blocks, both growing."""
    if not (_list(value) and value and all(_list(pair) and len(pair) == 2 for pair in value)):
        return False
    starts, blocks = zip(*value, strict=True)
    counted = blocks[:-1] if blocks[-1] == "all" else blocks
    rising = [all(a < b for a, b in pairwise(row)) for row in (starts, counted)]
    return all(map(_whole, (*starts, *counted))) and all(rising) and starts[0] == 0 and min(counted, default=0) >= 0


def one_of(*options: str) -> Rule:
    """One of some words."""
    return Rule(f"one of {', '.join(options)}", lambda value: value in options)


TEXT = Rule("text", lambda v: isinstance(v, str) and bool(v) and "\0" not in v)
TEXT_OR_NULL = Rule("text or null", lambda v: v is None or TEXT.holds(v))
FLAG = Rule("true or false", lambda v: isinstance(v, bool))
COUNT = Rule("a whole number of at least 1", lambda v: _whole(v) and v >= 1)
COUNT_OR_NULL = Rule("a whole number of at least 1, or null", lambda v: v is None or COUNT.holds(v))
COUNT_OR_OFF = Rule("a whole number of at least 1, or -1 for no limit", lambda v: v == -1 or COUNT.holds(v))
FROM_ZERO = Rule("a whole number of at least 0", lambda v: _whole(v) and v >= 0)
POSITIVE = Rule("a number above 0", lambda v: _number(v) and 0 < v < float("inf"))
FLOAT32 = 3.4e38  # the largest number, nearly
RATE = Rule("a number above 0 that float32 can hold", lambda v: _number(v) and 0 < v < FLOAT32)
NOT_NEGATIVE = Rule("a number of at least 0", lambda v: _number(v) and 0 <= v < float("inf"))
SHARE = Rule("a number from 0 to 1", lambda v: _number(v) and 0 <= v <= 1)
DROPOUT = Rule("a number from 0 to below 1", lambda v: _number(v) and 0 <= v < 1)

# It becomes part of a folder's name.
NAME = Rule(
    "a name of at most 100 bytes without / and control characters, and no dot at its front",
    lambda v: TEXT.holds(v) and v.isprintable() and v[0] != "." and not set("/\\") & set(v) and len(v.encode()) <= 100,
)
ENVIRONMENT = Rule("the name of an environment variable", lambda v: isinstance(v, str) and v.isidentifier())
NAMES = Rule("a list of texts", lambda v: _list(v) and all(isinstance(one, str) and one.strip() for one in v))

HUB_NAME = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
SEED = Rule("a whole number from 0 to 4294967295", lambda v: _whole(v) and 0 <= v < 2**32)

SIZE = Rule(
    "a size such as 500MB or 4GB",
    lambda v: isinstance(v, str) and re.fullmatch(r"\d+(\.\d+)?(KB|MB|GB|TB)", v, re.IGNORECASE) is not None,
)

RULES: dict[str, Rule] = {
    "seed": SEED,
    "allow_targets": Rule("a list of packages", lambda v: _list(v)),
    "objective": TEXT,
    "baseline": FLAG,
    "resume": TEXT_OR_NULL,
    "output_dir": TEXT,
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
    "data.path": Rule("text, a list of files, or null", lambda v: TEXT_OR_NULL.holds(v) or _texts(v)),
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
    "data.cache": Rule("off, a folder, or null for llmft's own", lambda v: v is None or v is False or TEXT.holds(v)),
    "data.processes": COUNT_OR_NULL,
    "data.split.train": Rule("a number from 0 to 1, or null for the rest", lambda v: v is None or SHARE.holds(v)),
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
    "performance": one_of("auto", "plain"),
    "model.name": NAME,
    "peft.name": NAME,
    "model.family": one_of("seq2seq", "causal"),
    "model.path": TEXT,
    "model.dropout": Rule("a number from 0 to below 1, or null", lambda v: v is None or DROPOUT.holds(v)),
    "model.new_tokens": Rule("a list of texts", lambda v: _list(v) and all(map(TEXT.holds, v))),
    "model.lora_targets": Rule("a list of names", lambda v: _texts(v)),
    "model.gguf_file": TEXT_OR_NULL,
    "model.dtype": Rule(
        "one of auto, float32, bfloat16 (in float16 T5 overflows, and gradients do everywhere)",
        lambda v: v in ("auto", "float32", "bfloat16"),
    ),
    "model.trust_remote_code": FLAG,
    "model.attention": one_of("auto", "sdpa", "eager", "by_length"),
    "model.padding": one_of("auto", "skipped", "kept"),
    "model.gradient_checkpointing": FLAG,
    "peft.method": one_of("none", "lora", "head", "unfreeze"),
    "peft.targets": Rule("auto, all-linear or a list of names", lambda v: TEXT.holds(v) or _texts(v)),
    "peft.r": COUNT,
    "peft.alpha": POSITIVE,
    "peft.dropout": DROPOUT,
    "peft.dora": FLAG,
    "peft.rslora": FLAG,
    "peft.adapter": TEXT_OR_NULL,
    "peft.quantise": Rule("nf4, fp4, int8 or null", lambda v: v in (None, "nf4", "fp4", "int8")),
    "peft.double_quant": FLAG,
    "peft.compute_dtype": one_of("float32", "bfloat16"),
    "peft.unit": one_of("epoch", "step"),
    "peft.schedule": Rule(
        "a list of [from, blocks], from 0 on, both growing; the last blocks may be all", lambda v: _stages(v)
    ),
    "peft.distill_from": TEXT_OR_NULL,
    "peft.distill_weight": Rule("a number above 0, up to 1", lambda v: POSITIVE.holds(v) and v <= 1),
    "peft.distill_temperature": POSITIVE,
    "optim.lr": RATE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.betas": Rule(
        "two numbers from 0 to below 1", lambda v: _list(v) and len(v) == 2 and all(map(DROPOUT.holds, v))
    ),
    "optim.fused": Rule("auto, true or false", lambda v: v == "auto" or isinstance(v, bool)),
    "optim.bits": Rule("8 or 32", lambda v: _whole(v) and v in (8, 32)),
    "optim.paged": FLAG,
    "optim.fallback": FLAG,
    "scheduler.name": one_of("linear", "cosine", "constant_with_warmup", "plateau"),
    "scheduler.factor": Rule("a number between 0 and 1", lambda v: POSITIVE.holds(v) and v < 1),
    "scheduler.patience": FROM_ZERO,
    "scheduler.warmup_steps": Rule(
        "a whole number of steps, or a fraction below 1", lambda v: FROM_ZERO.holds(v) or DROPOUT.holds(v)
    ),
    "trainer.devices": COUNT,
    "trainer.num_nodes": COUNT,
    "trainer.precision": one_of(
        "32-true", "bf16-mixed", "16-mixed"
    ),  # others would make trainable weights less than float32
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.strategy": one_of("auto", "ddp", "fsdp"),
    "trainer.fast_dev_run": FLAG,
    "trainer.deterministic": Rule("true, false or warn", lambda v: FLAG.holds(v) or v == "warn"),
    "trainer.val_check_interval": Rule(
        "a whole number of batches, or a share of the epoch up to 1.0",
        lambda v: COUNT.holds(v) or (POSITIVE.holds(v) and v <= 1),
    ),
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.max_epochs": COUNT_OR_OFF,
    "trainer.max_steps": COUNT_OR_OFF,
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.log_every_n_steps": COUNT,
    "callbacks.gradient_clipping.max_norm": POSITIVE,
    "callbacks.nan_guard.zero_steps": COUNT,
    "callbacks.nan_guard.explode_factor": Rule("a number above 1", lambda v: POSITIVE.holds(v) and v > 1),
    "callbacks.nan_guard.explode_steps": COUNT,
    "callbacks.nan_guard.idle_steps": Rule("a whole number of at least 2", lambda v: COUNT.holds(v) and v >= 2),
    "callbacks.nan_guard.history": COUNT,
    "callbacks.samples.number": FROM_ZERO,
    "callbacks.samples.max_new_tokens": COUNT,
    "callbacks.early_stopping.patience": COUNT_OR_NULL,
    "callbacks.early_stopping.mode": one_of("auto", "min", "max"),
    "callbacks.early_stopping.min_delta": NOT_NEGATIVE,
    "callbacks.pruning.pruner": one_of("none", "median", "halving"),
    "callbacks.pruning.warmup": FROM_ZERO,
    "callbacks.pruning.startup": FROM_ZERO,
    "callbacks.checkpoints.mode": one_of("auto", "min", "max"),
    "callbacks.checkpoints.every_n_steps": COUNT_OR_NULL,
    "callbacks.progress.refresh_rate": FROM_ZERO,
    "callbacks.progress.leave": FLAG,
    "evaluate.rows": Rule("a whole number of at least 0, or null for all", lambda v: v is None or FROM_ZERO.holds(v)),
    "evaluate.base": FLAG,
    "evaluate.in_training": FLAG,
    "evaluate.resamples": Rule("a whole number of at least 100", lambda v: _whole(v) and v >= 100),
    "evaluate.batch_tokens": COUNT,
    "evaluate.bleu_tokenizer": one_of("13a", "zh", "char", "intl"),
    "evaluate.keywords": Rule("true, false or auto", lambda v: FLAG.holds(v) or v == "auto"),
    "evaluate.seeds": Rule(
        "a list of seeds, or null", lambda v: v is None or (_list(v) and v and all(map(SEED.holds, v)))
    ),
    "evaluate.response_file": Rule("a file name, or null", lambda v: v is None or (TEXT.holds(v) and "/" not in v)),
    "judge.mode": one_of("score", "pairwise"),
    "judge.models": Rule("a list of names", lambda v: _texts(v)),
    "judge.seeds": Rule("a list of seeds", lambda v: _list(v) and len(v) > 0 and all(map(SEED.holds, v))),
    "judge.max_new_tokens": COUNT,
    "judge.max_characters": COUNT,
    "judge.prompt": TEXT,
    "judge.pairwise_prompt": TEXT,
    "judge.url": TEXT,
    "judge.allow_private": FLAG,
    "judge.concurrency": COUNT,
    "judge.timeout": POSITIVE,
    "judge.attempts": COUNT,
    "judge.backoff": NOT_NEGATIVE,
    "judge.max_bytes": COUNT,
    "judge.key_env": ENVIRONMENT,
    "report.write": FLAG,
    "report.examples": FROM_ZERO,
    "report.best_and_worst": FROM_ZERO,
    "report.reference_curve": TEXT_OR_NULL,
    "system": TEXT_OR_NULL,
    "chat.compare": FLAG,
    "chat.max_prompt_tokens": COUNT,
    "serve.host": TEXT,
    "serve.port": Rule("a whole number from 0 to 65535", lambda v: _whole(v) and 0 <= v < 2**16),
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
    "generation.top_p": Rule("a number above 0, up to 1", lambda v: POSITIVE.holds(v) and v <= 1),
    "generation.repetition_penalty": POSITIVE,
    "generation.no_repeat_ngram_size": FROM_ZERO,
}
