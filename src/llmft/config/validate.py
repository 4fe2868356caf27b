"""Validate a composed config; all errors are reported in one message, before anything is built."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from llmft.config.auto_model import resolve_model
from llmft.config.schema import COMMANDS, RULES, Command, Section, overlaps
from llmft.config.target_allowlist import allowed_targets, code_faults, resolver_faults, target_faults
from llmft.config.typed import Typed, resolved, typed
from llmft.config.typed_overrides import has_config_dir, typed_overrides
from llmft.config.write_paths import OUTPUTS, STUDY, Writable, argument_faults, path_faults
from llmft.utils.errors import checked

# Keys that can only be checked with the libraries or the model's architecture.
NEEDS_LIBRARIES = ("model", "peft", "data.max_prompt_tokens", "data.max_answer_tokens", "callbacks.samples", "prompt")

C = TypeVar("C", bound=Command)
S = TypeVar("S", bound=Section)


def check_early(cfg: DictConfig, command: str, overrides: Sequence[str]) -> None:
    """Check the values that need no library, since importing the libraries takes several seconds.

    If the command line sets single keys that need a library or the model to be checked, this leaves everything to ``check``,
    so that all errors are still reported in one message.

    Args:
        cfg: A composed config.
        command: The command, such as ``train``.
        overrides: Command-line overrides.

    Raises:
        UserError: As ``check``.
    """
    if cfg.get("resume"):  # the run's own config decides
        return
    if any(resolver_faults(cfg, allowed_targets(overrides))):  # the typed form would resolve these values
        return
    resolve_model(cfg)
    found = typed(cfg, COMMANDS[command])
    faults = [
        *found.messages,
        *_rule_faults(found, imports=False),
        *write_faults(cfg, COMMANDS[command], overrides, foreign=False),
    ]
    keys = (*NEEDS_LIBRARIES, *(key for rule in RULES if rule.imports for key in rule.keys))
    if faults and not any(_needs_more(override, keys, found.faults) for override in overrides):
        checked(list(dict.fromkeys(faults)))


def _needs_more(override: str, keys: Sequence[str], invalid: Collection[str]) -> bool:
    name = override.partition("=")[0]
    if name.startswith(("+", "~")) or name == "allow_targets" or name.endswith("_target_"):
        return True
    return "." in name and name not in invalid and any(overlaps(name, key) for key in keys)


def check(
    cfg: DictConfig,
    schema: type[C],
    *,
    architecture: Callable[[C, Collection[str]], list[str]] | None = None,
    models: bool = True,
    allow: Sequence[str] = (),
    overrides: Sequence[str] | None = None,
    stored: bool = False,
    elsewhere: bool = False,
) -> C:
    """Check a composed config: single values, rules between keys, targets, and what the model's architecture supports.

    Args:
        cfg: The config of a command.
        schema: The model of that command, such as ``TrainConfig``.
        architecture: Checks the config against the model's architecture (``models.architecture_check``), given the config and
            the keys that are already known to be invalid; None skips this check.
        models: Whether model classes will be needed; importing one takes seconds.
        allow: Packages and resolvers that are allowed in addition to ``allow_targets`` on the command line.
        overrides: Command-line overrides; None for those of the running Hydra job.
        stored: Whether it is the config of a stored run, which may not name other places to write to, and may have been
            trained on another machine.
        elsewhere: Whether it is for another machine, so that what this one lacks is no error.

    Returns:
        The typed config, interpolations resolved.

    Raises:
        UserError: All errors in one message, each with its key and the valid values.
    """
    allow = (*allow, *allowed_targets())
    if not_allowed := list(resolver_faults(cfg, allow)):  # the typed form would resolve these values
        checked([*not_allowed, *target_faults(cfg, allow)])
    resolve_model(cfg)
    found = typed(cfg, schema)
    faults = [
        *found.messages,
        *_rule_faults(found, machine=not (stored or elsewhere)),
        *write_faults(cfg, schema, typed_overrides() if overrides is None else overrides, stored=stored),
    ]
    targets = [*target_faults(cfg, allow, models=models), *code_faults(cfg, allow)]
    faults += targets
    if architecture and not any(fault.startswith("model.") for fault in targets):
        faults += architecture(found.config, set(found.faults))
    checked(list(dict.fromkeys(faults)))
    return found.config


def write_faults(
    cfg: DictConfig, schema: type[Command], overrides: Sequence[str], *, stored: bool = False, foreign: bool = True
) -> list[str]:
    """Paths that a config would write to, outside of the output folder and of what the command line allows.

    Args:
        cfg: The config of a command.
        schema: The model of that command.
        overrides: Command-line overrides.
        stored: Whether it is the config of a stored run.
        foreign: As for ``argument_faults``.
    """
    plain, faults = resolved(cfg), []
    run = plain.get("output_dir")
    own = [run, Path(run).absolute().parent / STUDY] if isinstance(run, str) else []
    if stored or has_config_dir():
        faults += path_faults(plain, schema.writes, Writable.by(overrides, OUTPUTS, *own))
    if (
        own and "callbacks" in plain and not stored
    ):  # callbacks and loggers of a stored run are not used, unless it is resumed
        faults += argument_faults(plain, Writable.by(overrides, *own), foreign=foreign)
    return faults


def check_section(values: Mapping[str, Any], schema: type[S], name: str) -> S:
    """Check one section by itself.

    Args:
        values: Plain data, or a node of a composed config.
        schema: The model of the section.
        name: The section's key, for messages; ``""`` for a command.

    Raises:
        UserError: All errors in one message.
    """
    found = typed(values if isinstance(values, DictConfig) else OmegaConf.create(dict(values)), schema, name)
    own = [rule for rule in RULES if list(rule.sections) == [name]]
    faults = [f for rule in own if not found.faults for f in rule.function(**{name: found.config})]
    checked([*found.messages, *faults])
    return found.config


def _rule_faults(found: Typed[Any], *, imports: bool = True, machine: bool = True) -> list[str]:
    rules = [rule for rule in RULES if (imports or not rule.imports) and (machine or not rule.machine)]
    return [fault for rule in rules for fault in rule.faults(found.config, found.faults)]
