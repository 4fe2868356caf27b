"""Schema of ``callbacks``, ``logger`` and the monitored metrics."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.metric_names import BETTER, TRAIN_METRICS
from llmft.config.schema.cross_field import Faults, cross_field
from llmft.config.schema.types import COUNT, COUNT_OR_NULL, FLAG, FROM_ZERO, NOT_NEGATIVE, POSITIVE, Rule, one_of
from llmft.utils.text import did_you_mean

SCORES = [f"val/{name}" for name, better in BETTER.items() if better and name != "judge"]
TRAINED = [f"train/{name}" for name in TRAIN_METRICS]

RULES: dict[str, Rule] = {
    "callbacks.gradient_clipping.max_norm": POSITIVE,
    "callbacks.nan_guard.zero_steps": COUNT,
    "callbacks.nan_guard.explode_factor": Rule("a number above 1", lambda v: POSITIVE.accepts(v) and v > 1),
    "callbacks.nan_guard.explode_steps": COUNT,
    "callbacks.nan_guard.idle_steps": Rule("a whole number of at least 2", lambda v: COUNT.accepts(v) and v >= 2),
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
}


@cross_field("callbacks.early_stopping.patience", "data.split.val")
def _early_stopping(cfg: DictConfig) -> Faults:
    patience = cfg.callbacks.early_stopping.patience
    if patience is not None and not cfg.data.split.val:
        yield f"callbacks.early_stopping.patience={patience}: needs a validation set, but data.split.val is 0"


@cross_field("callbacks")
def _callbacks(cfg: DictConfig) -> Faults:
    yield from _without_class(cfg, "callbacks")


@cross_field("logger")
def _loggers(cfg: DictConfig) -> Faults:
    yield from _without_class(cfg, "logger")


def _without_class(cfg: DictConfig, group: str) -> Faults:
    for name, node in cfg[group].items():
        if node is not None and not (isinstance(node, DictConfig) and "_target_" in node):
            yield f"{group}.{name}: must be null or a mapping with _target_"


@cross_field("objective", "callbacks")
def _objective(cfg: DictConfig) -> Faults:
    yield from _monitored(cfg, "objective", cfg.objective)


@cross_field("callbacks.early_stopping.monitor", "callbacks")
def _early_stopping_monitor(cfg: DictConfig) -> Faults:
    if (monitor := cfg.callbacks.early_stopping.monitor) != cfg.get("objective"):
        yield from _monitored(cfg, "callbacks.early_stopping.monitor", monitor)


@cross_field("callbacks.checkpoints.monitor", "callbacks")
def _checkpoints_monitor(cfg: DictConfig) -> Faults:
    if (monitor := cfg.callbacks.checkpoints.monitor) != cfg.get("objective"):
        yield from _monitored(cfg, "callbacks.checkpoints.monitor", monitor)


def _monitored(cfg: DictConfig, key: str, metric: Any) -> Faults:
    generated = bool(OmegaConf.select(cfg, "evaluate.in_training"))
    logged = [*(SCORES if generated else SCORES[:2]), *TRAINED]
    own = [
        node
        for node in cfg.callbacks.values()
        if isinstance(node, DictConfig) and not str(node.get("_target_")).startswith("llmft.")
    ]
    if not str(metric).startswith(("val/", "train/")):
        yield f"{key}={metric}: must be a logged metric, val/... or train/...; logged are {', '.join(logged)}"
    elif metric in SCORES and metric not in logged:
        yield f"{key}={metric}: is only logged with evaluate.in_training=true"
    elif metric not in logged and not own:  # a user's callback may log anything
        yield f"{key}={metric}: no such metric.{did_you_mean(metric, [*SCORES, *TRAINED])} Logged are {', '.join(logged)}"
