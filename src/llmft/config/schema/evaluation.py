"""Schema of ``evaluate``, ``judge`` and ``report``."""

from omegaconf import DictConfig, OmegaConf

from llmft.config.schema.cross_field import Faults, cross_field
from llmft.config.schema.types import (
    COUNT,
    ENVIRONMENT,
    FLAG,
    FROM_ZERO,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    TEXT,
    TEXT_OR_NULL,
    Rule,
    is_int,
    is_list,
    is_text_list,
    one_of,
)

RULES: dict[str, Rule] = {
    "evaluate.rows": Rule("a whole number of at least 0, or null for all", lambda v: v is None or FROM_ZERO.accepts(v)),
    "evaluate.base": FLAG,
    "evaluate.in_training": FLAG,
    "evaluate.resamples": Rule("a whole number of at least 100", lambda v: is_int(v) and v >= 100),
    "evaluate.batch_tokens": COUNT,
    "evaluate.bleu_tokenizer": one_of("13a", "zh", "char", "intl"),
    "evaluate.keywords": Rule("true, false or auto", lambda v: FLAG.accepts(v) or v == "auto"),
    "evaluate.seeds": Rule(
        "a list of seeds, or null", lambda v: v is None or (is_list(v) and v and all(map(SEED.accepts, v)))
    ),
    "evaluate.response_file": Rule("a file name, or null", lambda v: v is None or (TEXT.accepts(v) and "/" not in v)),
    "judge.mode": one_of("score", "pairwise"),
    "judge.models": Rule("a list of names", lambda v: is_text_list(v)),
    "judge.seeds": Rule("a list of seeds", lambda v: is_list(v) and len(v) > 0 and all(map(SEED.accepts, v))),
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
}


@cross_field("judge.kind", "evaluate.rows")
def _judge(cfg: DictConfig) -> Faults:
    if cfg.judge.kind != "none" and (cfg.evaluate.rows == 0 or OmegaConf.select(cfg, "trainer.fast_dev_run")):
        yield f"judge={cfg.judge.kind}: needs answers to judge, but evaluate.rows is {cfg.evaluate.rows}"


@cross_field("evaluate.seeds", "generation.do_sample")
def _seeds(cfg: DictConfig) -> Faults:
    if cfg.evaluate.seeds and not cfg.generation.do_sample and cfg.get("run") is None:
        seeds = list(cfg.evaluate.seeds)
        yield f"evaluate.seeds={seeds}: greedy and beam search give the same answers for each seed; use generation=sample"


@cross_field("evaluate.in_training", "evaluate.rows")
def _answers_in_training(cfg: DictConfig) -> Faults:
    if cfg.evaluate.in_training and cfg.evaluate.rows == 0:
        yield "evaluate.in_training=true: needs rows to evaluate, but evaluate.rows is 0"
