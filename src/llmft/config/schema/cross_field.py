"""A rule between keys, and the list of them: each part of the config adds its own."""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

Faults = Iterator[str]


class CrossFieldRule(NamedTuple):
    """A rule between keys: it applies where the config has all of them, and each of them is fine alone.

    Attributes:
        keys: Between which it is.
        faults: What is wrong.
        imports: Whether it asks a library, which takes seconds to import.
    """

    keys: tuple[str, ...]
    faults: Callable[[DictConfig], Faults]
    imports: bool

    def applies(self, cfg: DictConfig, broken: Collection[str]) -> bool:
        """Whether the rule can be asked: a broken key (or one above or below it) has its own fault already."""
        return not any(within(key, bad) for key in self.keys for bad in broken) and all(_has(cfg, k) for k in self.keys)


TOGETHER: list[CrossFieldRule] = []


def cross_field(
    *keys: str, imports: bool = False
) -> Callable[[Callable[[DictConfig], Faults]], Callable[[DictConfig], Faults]]:
    """Add a rule between these keys to the list."""

    def add(faults: Callable[[DictConfig], Faults]) -> Callable[[DictConfig], Faults]:
        TOGETHER.append(CrossFieldRule(keys, faults, imports))
        return faults

    return add


def within(key: str, bad: str) -> bool:
    """Whether one key is the other, or above or below it."""
    return key == bad or key.startswith(f"{bad}.") or bad.startswith(f"{key}.")


def _has(cfg: DictConfig, key: str) -> bool:
    above, _, name = key.rpartition(".")
    parent = OmegaConf.select(cfg, above) if above else cfg
    return isinstance(parent, DictConfig) and name in parent and not OmegaConf.is_missing(parent, name)
