"""Rules between keys; each schema module adds its own with ``@rule``."""

import inspect
from collections.abc import Callable, Collection, Iterator
from types import UnionType
from typing import Any, NamedTuple

from llmft.config.schema.section import Section

Faults = Iterator[str]
RuleFunction = Callable[..., Faults]


class Rule(NamedTuple):
    """A rule between keys of the config.

    Attributes:
        keys: The keys that it reads; it is skipped if one of them is invalid by itself.
        sections: The top-level keys that the function takes, with their types; it is skipped in commands that lack one.
        function: Yields an error message for each violation.
        imports: Whether it imports a library, which takes seconds.
        machine: Whether it asks what this machine has; a stored run is opened anywhere, so it is not asked there.
    """

    keys: tuple[str, ...]
    sections: dict[str, Any]
    function: RuleFunction
    imports: bool
    machine: bool

    def faults(self, config: Section, invalid: Collection[str]) -> Faults:
        """Error messages for a config, some keys of which may be invalid."""
        if any(overlaps(key, bad) for key in self.keys for bad in invalid):
            return
        values = {name: getattr(config, name) for name in self.sections if name in type(config).model_fields}
        if all(name in values and _is_of(values[name], kind) for name, kind in self.sections.items()):
            yield from self.function(**values)


RULES: list[Rule] = []


def rule(*keys: str, imports: bool = False, machine: bool = False) -> Callable[[RuleFunction], RuleFunction]:
    """Add a function as a rule between keys; its parameters are named after the sections that it reads.

    Args:
        keys: The keys that it reads.
        imports: Whether it imports a library, which takes seconds.
        machine: Whether it asks what this machine has, which imports torch.
    """

    def add(function: RuleFunction) -> RuleFunction:
        sections = {name: p.annotation for name, p in inspect.signature(function).parameters.items()}
        RULES.append(Rule(keys, sections, function, imports or machine, machine))
        return function

    return add


def _is_of(value: object, kind: Any) -> bool:
    """Whether a value is a section of this type (``data`` of ``evaluate`` is not ``Data``); other types are not checked."""
    sections = isinstance(kind, UnionType) or (isinstance(kind, type) and issubclass(kind, Section))
    return not sections or isinstance(value, kind)


def overlaps(key: str, bad: str) -> bool:
    """Whether two keys are equal, or one is a parent of the other."""
    return key == bad or key.startswith(f"{bad}.") or bad.startswith(f"{key}.")
