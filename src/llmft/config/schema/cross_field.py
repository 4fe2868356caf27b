"""Cross-field rules; each schema module registers its own with ``@cross_field``."""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

Faults = Iterator[str]


class CrossFieldRule(NamedTuple):
    """A rule between keys; it applies if the config has all of them and each is valid by itself.

    Attributes:
        keys: The keys that it reads.
        faults: Yields an error message for each violation.
        imports: Whether it imports a library, which takes seconds.
    """

    keys: tuple[str, ...]
    faults: Callable[[DictConfig], Faults]
    imports: bool

    def applies(self, cfg: DictConfig, broken: Collection[str]) -> bool:
        """Whether all keys exist, and none of them (or a parent or child) is already reported as invalid."""
        return not any(overlaps(key, bad) for key in self.keys for bad in broken) and all(
            _has(cfg, k) for k in self.keys
        )


CROSS_FIELD_RULES: list[CrossFieldRule] = []


def cross_field(
    *keys: str, imports: bool = False
) -> Callable[[Callable[[DictConfig], Faults]], Callable[[DictConfig], Faults]]:
    """Register a function that yields error messages as a rule between these keys."""

    def add(faults: Callable[[DictConfig], Faults]) -> Callable[[DictConfig], Faults]:
        CROSS_FIELD_RULES.append(CrossFieldRule(keys, faults, imports))
        return faults

    return add


def overlaps(key: str, bad: str) -> bool:
    """Whether two keys are equal, or one is a parent of the other."""
    return key == bad or key.startswith(f"{bad}.") or bad.startswith(f"{key}.")


def _has(cfg: DictConfig, key: str) -> bool:
    above, _, name = key.rpartition(".")
    parent = OmegaConf.select(cfg, above) if above else cfg
    return isinstance(parent, DictConfig) and name in parent and not OmegaConf.is_missing(parent, name)
