"""The rules that a composed config must keep; all faults are found before anything is built."""

import inspect
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config import checked, did_you_mean
from llmft.evaluation.metric import BETTER
from llmft.rules import RULES

MODELS = ("model", "judge.model")  # their keys are read, not passed to the class
ALLOWED_TARGETS = ("llmft.", "torch.optim.", "lightning.pytorch.")


def check(cfg: DictConfig) -> None:
    """Check a composed config.

    Raises:
        UserError: All faults in one message, each with its key and what would be right.
    """
    faults = list(dict.fromkeys(_broken_rules(cfg)))
    faults += [*_broken_together(cfg)] if not faults else []
    faults += [*_broken_targets(cfg)]
    checked(faults)


def _broken_rules(cfg: DictConfig) -> Iterator[str]:
    for key, rule in RULES.items():
        above, _, name = key.rpartition(".")
        parent = OmegaConf.select(cfg, above) if above else cfg
        if parent is not None and not isinstance(parent, DictConfig):
            yield f"{above}={parent}: must hold keys"
        if not isinstance(parent, DictConfig) or name not in parent:
            continue
        try:
            value = OmegaConf.select(cfg, key)
        except OmegaConfBaseException as error:
            yield f"{key}: {str(error).splitlines()[0]}"
            continue
        if not rule.holds(value):
            yield f"{key}={value}: must be {rule.words}"


def _broken_together(cfg: DictConfig) -> Iterator[str]:
    if "split" in cfg.get("data", {}):
        split = cfg.data.split
        if cfg.data.path is None:
            yield "data.path=None: must be text; data.path=sample for the shipped rows"
        if (split.train or 0) + split.val + split.test > 1 + 1e-9:
            shares = f"train {split.train}, val {split.val}, test {split.test}"
            yield f"data.split: the shares add up to more than 1: {shares}; data.split.train=null takes the rest"
        if cfg.data.train_on == "all" and cfg.model.family == "seq2seq":
            yield "data.train_on=all: a seq2seq model trains on the answer alone; use data.train_on=answer"
    if "prompt" in cfg and cfg.prompt.name == "auto" and cfg.prompt.template is not None:
        yield "prompt.template: prompt=auto would not use it; choose prompt=plain and set its template"
    if "model" in cfg and not cfg.model._target_.lower().endswith(f".{cfg.model.family}"):
        yield f"model.family={cfg.model.family}: {cfg.model._target_} is of the other family"
    if (
        "judge" in cfg
        and cfg.judge.kind != "none"
        and (cfg.evaluate.rows == 0 or cfg.get("trainer", {}).get("fast_dev_run"))
    ):
        yield f"judge={cfg.judge.kind}: needs answers to judge, but evaluate.rows is {cfg.evaluate.rows}"
    if "evaluate" in cfg and cfg.evaluate.seeds and not cfg.generation.do_sample and cfg.get("run") is None:
        yield f"evaluate.seeds={list(cfg.evaluate.seeds)}: greedy and beam answers are the same for each; use generation=sample"
    if "trainer" in cfg:
        yield from _broken_training(cfg)


def _broken_training(cfg: DictConfig) -> Iterator[str]:
    precision = str(cfg.trainer.precision)
    if precision.startswith("16") and cfg.model.family == "seq2seq":
        yield f"trainer.precision={precision}: T5 overflows in float16; use bf16-mixed or 32-true"
    if cfg.model.dtype != "float32" and cfg.peft.method == "none":
        yield f"model.dtype={cfg.model.dtype}: it would lose small updates of full fine-tuning; use float32"
    if precision == "16-mixed" and cfg.trainer.accelerator == "cpu":
        yield "trainer.precision=16-mixed: float16 needs a GPU; use bf16-mixed or 32-true"
    patience = OmegaConf.select(cfg, "callbacks.early_stopping.patience")
    if patience is not None and not cfg.data.split.val:
        yield f"callbacks.early_stopping.patience={patience}: needs a validation set, but data.split.val is 0"
    if cfg.trainer.max_epochs == -1 and cfg.trainer.max_steps == -1:
        yield "trainer.max_epochs=-1: needs an end; set trainer.max_steps"
    yield from _broken_objective(cfg)


def _broken_objective(cfg: DictConfig) -> Iterator[str]:
    scores = [f"val/{name}" for name, better in BETTER.items() if better and name != "judge"]
    logged = scores if cfg.evaluate.in_training else scores[:2]
    own = [node for node in cfg.callbacks.values() if node and not node._target_.startswith("llmft.")]
    if not cfg.objective.startswith("val/"):
        yield f"objective={cfg.objective}: must be a validation metric; {' and '.join(logged[:2])} are logged"
    elif cfg.objective in scores and cfg.objective not in logged:
        yield f"objective={cfg.objective}: is measured in training with evaluate.in_training=true alone"
    elif cfg.objective not in logged and not own:  # a callback of the user's may log anything
        near = did_you_mean(cfg.objective, scores)
        yield f"objective={cfg.objective}: no such metric.{near} {', '.join(logged)} are logged"
    if cfg.evaluate.in_training and cfg.evaluate.rows == 0:
        yield "evaluate.in_training=true: needs rows to answer, but evaluate.rows is 0"


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
            if not (free or key.startswith("_") or key in parameters or path in MODELS):
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
