"""Read options of the config groups in ``conf/`` without Hydra."""

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.paths import conf_dir
from llmft.config.schema.model import Prompt


def group_config(group: str, option: str) -> DictConfig:
    """Load an option of a group, its defaults list resolved; a copy."""
    return OmegaConf.create(_load(group, option))


def option_keys(group: str, option: str) -> dict[str, Any]:
    """The keys in the file of an option, without those of its defaults list."""
    return {key: value for key, value in _read(group, option).items() if key != "defaults"}


def matching_config(group: str, key: str, value: object) -> DictConfig:
    """Load the first option of a group with this value of a key, such as ``_target_``; empty if there is none."""
    for file in sorted((conf_dir() / group).glob("[!_]*.yaml")):
        found = _load(group, file.stem)
        if found.get(key) == value:
            return OmegaConf.create(found)
    return OmegaConf.create({})


@cache
def group_files() -> dict[str, list[Path]]:
    """The files of each group (``model``, ``hydra/launcher``), templates such as ``_base`` first."""
    found: dict[str, list[Path]] = {}
    root = conf_dir()
    for file in sorted(root.rglob("*.yaml")):
        if file.parent != root:
            found.setdefault(file.parent.relative_to(root).as_posix(), []).append(file)
    return found


@cache
def group_values(group: str) -> dict[str, Any]:
    """The value of each key of a group where all files that introduce it agree; ``_target_`` is a list, of all options."""
    values: dict[str, list[Any]] = {}
    targets = []
    for file in group_files()[group]:
        option = _load(group, file.stem)
        inherited = {key for parent in _parents(_read(group, file.stem)) for key in _load(group, parent)}
        for key in (key for key in option if key not in inherited):
            values.setdefault(key, []).append(option[key])
        targets.append(option.get("_target_"))
    agreed = {key: found[0] for key, found in values.items() if all(value == found[0] for value in found)}
    return agreed | {"_target_": [target for target in dict.fromkeys(targets) if target]}


def command_config(command: str) -> dict[str, Any]:
    """The keys of a command outside of its groups."""
    return {key: value for key, value in _load("", command).items() if key != "hydra"}


@cache
def _load(group: str, option: str) -> dict[str, Any]:
    parents = [_load(group, parent) for parent in _parents(_read(group, option))]
    merged = OmegaConf.merge(*parents, option_keys(group, option))
    plain: Any = OmegaConf.to_container(merged)
    return plain


@cache
def _read(group: str, option: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{option}.yaml"))
    return plain


def _parents(cfg: dict[str, Any]) -> list[str]:
    """The files of the same group that a file builds on."""
    return [
        entry for entry in cfg.get("defaults", []) if isinstance(entry, str) and entry != "_self_" and "@" not in entry
    ]


def prompt_config(name: str) -> Prompt:
    """A shipped option of the prompt group."""
    return Prompt.model_validate(OmegaConf.to_container(group_config("prompt", name)))
