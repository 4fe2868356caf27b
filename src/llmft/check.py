"""The rules that a composed config must keep; all faults are found before anything is built."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config import checked, did_you_mean

ALLOWED_TARGETS = ("llmft.", "torch.optim.", "lightning.pytorch.")


class Rule(NamedTuple):
    """What a value must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
NOT_NEGATIVE = Rule("a number of at least 0", lambda v: _number(v) and 0 <= v < float("inf"))
SHARE = Rule("a number from 0 to 1", lambda v: _number(v) and 0 <= v <= 1)
DROPOUT = Rule("a number from 0 to below 1", lambda v: _number(v) and 0 <= v < 1)

RULES: dict[str, Rule] = {
    "seed": Rule("a whole number from 0 to 4294967295", lambda v: _whole(v) and 0 <= v < 2**32),
    "objective": TEXT,
    "baseline": FLAG,
    "questions": FROM_ZERO,
    "output_dir": TEXT,
    "format": one_of("text", "json"),
    "preview.rows": COUNT_OR_NULL,
    "data.path": TEXT,
    "data.system": TEXT_OR_NULL,
    "data.batch_size": COUNT,
    "data.limit": COUNT_OR_NULL,
    "data.max_prompt_tokens": COUNT,
    "data.max_answer_tokens": COUNT,
    "data.too_long": one_of("error", "drop", "trim_prompt", "trim_answer"),
    "data.invalid": one_of("error", "drop"),
    "data.duplicates": one_of("keep", "drop", "error"),
    "data.split.train": Rule("a number from 0 to 1, or null for the rest", lambda v: v is None or SHARE.holds(v)),
    "data.split.val": SHARE,
    "data.split.test": SHARE,
    "data.split_by": one_of("shuffle", "position"),
    "data.shuffle": FLAG,
    "data.batching": one_of("rows", "grouped"),
    "data.num_workers": FROM_ZERO,
    "data.train_on": one_of("answer", "all"),
    "model.path": TEXT,
    "model.gguf_file": TEXT_OR_NULL,
    "model.dtype": one_of("float32", "bfloat16"),
    "model.attention": one_of("sdpa", "eager"),
    "peft.r": COUNT,
    "peft.alpha": POSITIVE,
    "peft.dropout": DROPOUT,
    "optim.lr": POSITIVE,
    "optim.weight_decay": NOT_NEGATIVE,
    "scheduler.warmup_steps": Rule(
        "a whole number of steps, or a fraction below 1", lambda v: SHARE.holds(v) or COUNT.holds(v)
    ),
    "trainer.devices": Rule("1 (several processes come with the distributed trainers)", lambda v: v == 1),
    "trainer.max_epochs": COUNT_OR_OFF,
    "trainer.max_steps": COUNT_OR_OFF,
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.log_every_n_steps": COUNT,
    "callbacks.gradient_clipping.max_norm": POSITIVE,
    "callbacks.nan_guard.zero_steps": COUNT,
    "callbacks.samples.number": FROM_ZERO,
    "callbacks.samples.max_new_tokens": COUNT,
    "callbacks.early_stopping.patience": COUNT_OR_NULL,
    "callbacks.checkpoints.mode": one_of("min", "max"),
    "generation.max_new_tokens": COUNT,
    "generation.num_beams": COUNT,
    "generation.batch_size": COUNT,
    "generation.do_sample": FLAG,
    "generation.temperature": POSITIVE,
    "generation.repetition_penalty": POSITIVE,
    "generation.no_repeat_ngram_size": FROM_ZERO,
}


def check(cfg: DictConfig) -> None:
    """Check a composed config.

    Raises:
        UserError: All faults in one message, each with its key and what would be right.
    """
    faults = [*_broken_rules(cfg)]
    faults += [*_broken_together(cfg)] if not faults else []
    faults += [*_broken_targets(cfg)]
    checked(faults)


def _broken_rules(cfg: DictConfig) -> Iterator[str]:
    for key, rule in RULES.items():
        parent = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg
        if parent is None or key.rpartition(".")[2] not in parent:
            continue
        try:
            value = OmegaConf.select(cfg, key)
        except OmegaConfBaseException as error:
            yield f"{key}: {str(error).splitlines()[0]}"
            continue
        if not rule.holds(value):
            yield f"{key}={value}: must be {rule.words}"


def _broken_together(cfg: DictConfig) -> Iterator[str]:
    if "data" in cfg:
        split = cfg.data.split
        if (split.train or 0) + split.val + split.test > 1 + 1e-9:
            shares = f"train {split.train}, val {split.val}, test {split.test}"
            yield f"data.split: the shares add up to more than 1: {shares}; data.split.train=null takes the rest"
        if cfg.data.train_on == "all" and cfg.model.family == "seq2seq":
            yield "data.train_on=all: a seq2seq model trains on the answer alone; use data.train_on=answer"
    if "trainer" in cfg:
        yield from _broken_training(cfg)


def _broken_training(cfg: DictConfig) -> Iterator[str]:
    precision = str(cfg.trainer.precision)
    if precision.startswith("16") and cfg.model.family == "seq2seq":
        yield f"trainer.precision={precision}: T5 overflows in float16; use bf16-mixed or 32-true"
    if cfg.trainer.max_epochs == -1 and cfg.trainer.max_steps == -1:
        yield "trainer.max_epochs=-1: needs an end; set trainer.max_steps"
    if not cfg.objective.startswith("val/"):
        yield f"objective={cfg.objective}: must be a validation metric; val/loss and val/perplexity are logged"
    elif cfg.objective not in ("val/loss", "val/perplexity"):
        near = did_you_mean(cfg.objective, ("val/loss", "val/perplexity"))
        yield f"objective={cfg.objective}: no such metric.{near} val/loss and val/perplexity are logged"


def _broken_targets(cfg: DictConfig) -> Iterator[str]:
    from hydra.utils import get_object

    allowed = (*ALLOWED_TARGETS, *(f"{package}." for package in cfg.get("allow_targets") or ()))
    for path, node in _targets(OmegaConf.to_container(cfg, resolve=False), ""):
        target = node["_target_"]
        if not str(target).startswith(allowed):
            root = str(target).partition(".")[0]
            yield f"{path}._target_={target}: not allowed; classes come from {', '.join(allowed)} (allow_targets=[{root}])"
            continue
        try:
            parameters = inspect.signature(get_object(target)).parameters
        except Exception as error:  # an import can fail in any way
            yield f"{path}._target_={target}: cannot be imported ({str(error).splitlines()[0]})"
            continue
        free = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        for key in node:
            if not (free or key.startswith("_") or key in parameters or path == "model"):
                yield f"{path}.{key}: {target} has no such argument.{did_you_mean(key, parameters)}"


def _targets(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, child in node.items():
            yield from _targets(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _targets(child, f"{path}[{number}]")
