"""The rules that a composed config must keep; all faults are found before anything is built."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config import checked, did_you_mean
from llmft.rules import RULES
from llmft.together import TOGETHER, within

MODELS = ("model", "judge.model")  # their keys are read, not passed to the class
ALLOWED_TARGETS = ("llmft.", "torch.optim.", "lightning.pytorch.")


# What only the libraries, or the model's architecture, can tell to be right.
LOOKED_INTO = ("model", "peft", "data.max_prompt_tokens", "data.max_answer_tokens", "callbacks.samples", "prompt")


def check_early(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Say at once what is wrong with the values, where that needs no library: importing them takes several seconds.

    Where the command line sets keys that need a library or the model to be checked (one by one, not as an option of a group),
    nothing is said here, so that all faults still come in one message, by ``check``.

    Args:
        cfg: As composed.
        overrides: Of the command line.

    Raises:
        UserError: As ``check``.
    """
    if cfg.get("resume"):  # the run's own config decides
        return
    broken = dict(_broken_rules(cfg))
    light = [rule for rule in TOGETHER if not rule.imports]
    faults = [*broken.values(), *(f for rule in light if rule.applies(cfg, broken) for f in rule.faults(cfg))]
    keys = (*LOOKED_INTO, *(key for rule in TOGETHER if rule.imports for key in rule.keys))
    if faults and not any(_needs_more(override, keys, broken) for override in overrides):
        checked(list(dict.fromkeys(faults)))


def _needs_more(override: str, keys: Sequence[str], broken: dict[str, str]) -> bool:
    name = override.partition("=")[0]
    if name.startswith(("+", "~")) or name == "allow_targets" or name.endswith("_target_"):
        return True
    return "." in name and name not in broken and any(within(name, key) for key in keys)


def check(cfg: DictConfig, *, architecture: bool = False, models: bool = True) -> None:
    """Check a composed config: each value, values against each other, targets, and what the model's architecture allows.

    Args:
        cfg: Of any command; rules about keys that it does not have do not apply.
        architecture: Whether to look at the model too, where its config is on this machine (no weights are read).
        models: Whether a class of a model will be needed; importing one takes seconds.

    Raises:
        UserError: All faults in one message, each with its key and what would be right.
    """
    broken = dict(_broken_rules(cfg))
    faults = list(broken.values())
    faults += [fault for rule in TOGETHER if rule.applies(cfg, broken) for fault in rule.faults(cfg)]
    targets = [*_broken_targets(cfg, models=models)]
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


def _broken_targets(cfg: DictConfig, *, models: bool) -> Iterator[str]:
    from hydra.utils import get_object

    allowed = (*ALLOWED_TARGETS, *(f"{package}." for package in cfg.get("allow_targets") or ()))
    for path, node in _targets(OmegaConf.to_container(cfg, resolve=False), ""):
        target = node["_target_"]
        if not str(target).startswith(allowed):
            root = str(target).partition(".")[0]
            yield f"{path}._target_={target}: not allowed; classes come from {', '.join(allowed)} (allow_targets=[{root}])"
            continue
        if path in MODELS and not models:
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
