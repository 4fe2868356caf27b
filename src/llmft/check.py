"""The rules that a composed config must keep; all faults are found before anything is built."""

import inspect
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config import checked, did_you_mean
from llmft.rules import RULES
from llmft.together import TOGETHER

MODELS = ("model", "judge.model")  # their keys are read, not passed to the class
ALLOWED_TARGETS = ("llmft.", "torch.optim.", "lightning.pytorch.")


def check(cfg: DictConfig, *, architecture: bool = False) -> None:
    """Check a composed config: each value, values against each other, targets, and what the model's architecture allows.

    Args:
        cfg: Of any command; rules about keys that it does not have do not apply.
        architecture: Whether to look at the model too, where its config is on this machine (no weights are read).

    Raises:
        UserError: All faults in one message, each with its key and what would be right.
    """
    broken = dict(_broken_rules(cfg))
    faults = list(broken.values())
    faults += [fault for rule in TOGETHER if rule.applies(cfg, broken) for fault in rule.faults(cfg)]
    targets = [*_broken_targets(cfg)]
    faults += targets
    if architecture and not any(fault.startswith("model._target_") for fault in targets):
        from llmft.models.outline import architecture_faults

        faults += architecture_faults(cfg, set(broken))
    checked(list(dict.fromkeys(faults)))


def _broken_rules(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    for key, rule in RULES.items():
        above, _, name = key.rpartition(".")
        parent = OmegaConf.select(cfg, above) if above else cfg
        if parent is not None and not isinstance(parent, DictConfig):
            yield above, f"{above}={parent}: must hold keys"
        if not isinstance(parent, DictConfig) or name not in parent:
            continue
        try:
            value = OmegaConf.select(cfg, key)
        except OmegaConfBaseException as error:
            yield key, f"{key}: {str(error).splitlines()[0]}"
            continue
        if not rule.holds(value):
            yield key, f"{key}={value}: must be {rule.words}"


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
