"""Read options of the config groups in ``conf/`` without Hydra."""

from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.paths import conf_dir


def group_config(group: str, option: str) -> DictConfig:
    """Load an option of a group, its defaults list resolved; a copy."""
    return OmegaConf.create(_load(group, option))


def matching_config(group: str, key: str, value: object) -> DictConfig:
    """Load the first option of a group with this value of a key, such as ``_target_``; empty if there is none."""
    for file in sorted((conf_dir() / group).glob("[!_]*.yaml")):
        found = _load(group, file.stem)
        if found.get(key) == value:
            return OmegaConf.create(found)
    return OmegaConf.create({})


@cache
def _load(group: str, option: str) -> dict[str, Any]:
    cfg = OmegaConf.load(conf_dir() / group / f"{option}.yaml")
    assert isinstance(cfg, DictConfig)
    parents = [p for p in cfg.pop("defaults", []) if isinstance(p, str) and p != "_self_" and "@" not in p]
    merged = OmegaConf.merge(*(_load(group, parent) for parent in parents), cfg)
    plain: Any = OmegaConf.to_container(merged)
    return plain
