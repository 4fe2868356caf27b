"""Validate a composed config; all errors are reported in one message, before anything is built."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config.paths import conf_dir
from llmft.config.schema import CROSS_FIELD_RULES, RULES, overlaps
from llmft.config.target_allowlist import allowed_targets, code_faults, resolver_faults, target_faults
from llmft.utils.errors import checked
from llmft.utils.text import did_you_mean, first_line

# Keys that can only be checked with the libraries or the model's architecture.
NEEDS_LIBRARIES = ("model", "peft", "data.max_prompt_tokens", "data.max_answer_tokens", "callbacks.samples", "prompt")


def check_early(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Check the values that need no library, since importing the libraries takes several seconds.

    If the command line sets single keys that need a library or the model to be checked, this leaves everything to ``check``,
    so that all errors are still reported in one message.

    Args:
        cfg: A composed config.
        overrides: Command-line overrides.

    Raises:
        UserError: As ``check``.
    """
    if cfg.get("resume"):  # the run's own config decides
        return
    if any(resolver_faults(cfg, allowed_targets(overrides))):  # rules would resolve these values
        return
    broken = dict(_broken_rules(cfg))
    light = [rule for rule in CROSS_FIELD_RULES if not rule.imports]
    faults = [*broken.values(), *(f for rule in light if rule.applies(cfg, broken) for f in rule.faults(cfg))]
    keys = (*NEEDS_LIBRARIES, *(key for rule in CROSS_FIELD_RULES if rule.imports for key in rule.keys))
    if faults and not any(_needs_more(override, keys, broken) for override in overrides):
        checked(list(dict.fromkeys(faults)))


def _needs_more(override: str, keys: Sequence[str], broken: dict[str, str]) -> bool:
    name = override.partition("=")[0]
    if name.startswith(("+", "~")) or name == "allow_targets" or name.endswith("_target_"):
        return True
    return "." in name and name not in broken and any(overlaps(name, key) for key in keys)


def check(
    cfg: DictConfig,
    *,
    architecture: Callable[[DictConfig, Collection[str]], list[str]] | None = None,
    models: bool = True,
    allow: Sequence[str] = (),
) -> None:
    """Check a composed config: single values, cross-field rules, targets, and what the model's architecture supports.

    Args:
        cfg: The config of any command; rules about keys that it does not have are skipped.
        architecture: Checks the config against the model's architecture (``models.architecture_check``), given the config and
            the keys that are already known to be invalid; None skips this check.
        models: Whether model classes will be needed; importing one takes seconds.
        allow: Packages and resolvers that are allowed in addition to ``allow_targets`` on the command line.

    Raises:
        UserError: All errors in one message, each with its key and the valid values.
    """
    allow = (*allow, *allowed_targets())
    if not_allowed := list(resolver_faults(cfg, allow)):  # rules would resolve these values
        checked([*not_allowed, *target_faults(cfg, allow)])
    broken = dict(_broken_rules(cfg))
    faults = [*broken.values(), *_unknown_keys(cfg)]
    faults += [fault for rule in CROSS_FIELD_RULES if rule.applies(cfg, broken) for fault in rule.faults(cfg)]
    targets = [*target_faults(cfg, allow, models=models), *code_faults(cfg, allow)]
    faults += targets
    if architecture and not any(fault.startswith("model.") for fault in targets):
        faults += architecture(cfg, set(broken))
    checked(list(dict.fromkeys(faults)))


def _broken_rules(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    for group in _groups() & set(cfg):
        if not isinstance(node := OmegaConf.select(cfg, str(group)), DictConfig):
            yield str(group), f"{group}={node}: must be a mapping"
    for key, rule in RULES.items():
        above, _, name = key.rpartition(".")
        parent = OmegaConf.select(cfg, above) if above else cfg
        if parent is not None and not isinstance(parent, DictConfig):
            yield above, f"{above}={parent}: must be a mapping"
        if not isinstance(parent, DictConfig) or name not in parent:
            continue
        try:
            value = OmegaConf.select(cfg, key)
        except OmegaConfBaseException as error:
            yield key, f"{key}: {first_line(error)}"
            continue
        if not rule.accepts(value):
            yield key, f"{key}={value}: must be {rule.description}"


def _unknown_keys(cfg: DictConfig) -> Iterator[str]:
    """Keys that nothing reads, added with ``+`` or by a file; arguments of a ``_target_`` are checked with the target."""
    for section, known in _known_keys().items():
        node = OmegaConf.select(cfg, section) if section else cfg
        for key in node if isinstance(node, DictConfig) else ():
            if key not in known:
                name = f"{section}.{key}" if section else str(key)
                yield f"{name}: no such key.{did_you_mean(name, (f'{section}.{key}'.lstrip('.') for key in known))}"


@cache
def _groups() -> frozenset[str]:
    return frozenset(folder.name for folder in conf_dir().iterdir() if folder.is_dir())


@cache
def _known_keys() -> dict[str, set[str]]:
    """Known keys by section: top level (``""``), sections of commands, and groups that are not arguments of a class."""

    def read(pattern: str) -> list[dict[str, Any]]:
        return [yaml.safe_load(file.read_bytes()) or {} for file in sorted(conf_dir().glob(pattern))]

    commands, groups = read("*.yaml"), _groups()
    known = {group: {key for keys in read(f"{group}/*.yaml") for key in keys} for group in ("model", "peft", "prompt")}
    known["judge"] = {"model", *(key for keys in read("judge/*.yaml") for key in keys)}
    known["judge.model"] = known["model"]
    for name in {key for keys in commands for key in keys} - groups - {"defaults", "hydra"}:
        nodes = [keys[name] for keys in commands if isinstance(keys.get(name), dict)]
        known |= {name: {key for node in nodes for key in node}} if nodes else {}
    return {"": {key for keys in commands for key in keys} | groups, **known}
