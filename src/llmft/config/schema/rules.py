"""Rules between keys; each schema module adds its own with ``@rule``."""

import inspect
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from llmft.config.schema.section import Section

Faults = Iterator[str]
RuleFunction = Callable[..., Faults]


class Rule(NamedTuple):
    """A rule between keys of the config.

    Attributes:
        keys: The keys that it reads; it is skipped if one of them is invalid by itself.
        sections: Names of the top-level keys that the function takes; it is skipped in commands that lack one.
        function: Yields an error message for each violation.
        imports: Whether it imports a library, which takes seconds.
    """

    keys: tuple[str, ...]
    sections: tuple[str, ...]
    function: RuleFunction
    imports: bool

    def faults(self, config: Section, invalid: Collection[str]) -> Faults:
        """Error messages for a config, some keys of which may be invalid."""
        if any(overlaps(key, bad) for key in self.keys for bad in invalid):
            return
        if all(name in type(config).model_fields for name in self.sections):
            yield from self.function(**{name: getattr(config, name) for name in self.sections})


RULES: list[Rule] = []


def rule(*keys: str, imports: bool = False) -> Callable[[RuleFunction], RuleFunction]:
    """Add a function as a rule between keys; its parameters are named after the sections that it reads.

    Args:
        keys: The keys that it reads.
        imports: Whether it imports a library, which takes seconds.
    """

    def add(function: RuleFunction) -> RuleFunction:
        RULES.append(Rule(keys, tuple(inspect.signature(function).parameters), function, imports))
        return function

    return add


def overlaps(key: str, bad: str) -> bool:
    """Whether two keys are equal, or one is a parent of the other."""
    return key == bad or key.startswith(f"{bad}.") or bad.startswith(f"{key}.")
