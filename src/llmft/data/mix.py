"""Several data sets at once: each row keeps its source, each set its meaning and its weight."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from llmft.data.datamodule import InstructionDataModule
from llmft.data.preprocessing.encode import hash_of
from llmft.data.preprocessing.read_examples import ExampleReader
from llmft.data.records import Example, Row
from llmft.data.sources import Source
from llmft.utils.errors import UserError

# What each set has for itself; all else is said once, for the mix.
OWN = ("name", "path", "sha256", "revision", "subset", "hub_split", "system", "prompt", "limit")


class Mix(InstructionDataModule):
    """The sets that stand in ``data.sets``, one behind the other.

    Args:
        sets: For each name a set of ``conf/data``, complete: its class, path, system line and columns. Its other keys are
            the mix's (a set's own prompt too: all rows of a run have one template).
        weights: For each name how often its rows stand in an epoch of training: 1 once, 3 three times, 0.25 a quarter of
            them (which, ``data.seed`` decides). Validation and test have each row once.
        rest: What every data set has.

    Raises:
        UserError: There are no sets, or the weights name others.
    """

    def __init__(
        self,
        *,
        sets: Mapping[str, Callable[..., InstructionDataModule] | None],
        weights: Mapping[str, float],
        **rest: Any,
    ) -> None:
        made = {name: part for name, part in sets.items() if part is not None}
        if faults := list(_faults(made, weights)):
            raise UserError.from_faults("data=mix", faults, shown=len(faults))
        common = {name: value for name, value in rest.items() if name not in OWN}
        self.parts = {name: part(**common) for name, part in made.items()}
        self.weights = {name: float(weights.get(name, 1)) for name in self.parts}
        super().__init__(**rest)

    def found(self, *_: Any, **__: Any) -> Source:
        """All files of all sets."""
        sources = [part.source for part in self.parts.values()]
        digests = [source.sha256 for source in sources]
        whole = hashlib.sha256("\n".join(map(str, digests)).encode()).hexdigest() if all(digests) else None
        return Source(" + ".join(s.given for s in sources), tuple(p for s in sources for p in s.parts), whole)

    def readings(self) -> list[ExampleReader]:
        """One for each set, whose rows carry its name."""
        limit = self.reading.limit
        parts = [(name, part.reading) for name, part in self.parts.items()]
        return [replace(reading, name=name, limit=reading.limit or limit) for name, reading in parts]

    def meaning(self) -> dict[str, Any]:
        """What the rows of each set mean."""
        return {name: part.meaning() for name, part in self.parts.items()}

    @staticmethod
    def to_example(row: Row) -> Example:
        """Never asked: the sets are."""
        raise NotImplementedError

    def weighted(self, rows: np.ndarray) -> np.ndarray:
        """Each row as often as its set's weight says; which rows a fraction takes is drawn by the seed.

        Raises:
            UserError: No row is left.
        """
        sources = self.facts["source"][rows]
        weights = np.zeros(len(rows))
        for name, weight in self.weights.items():
            weights[sources == hash_of(name)] = weight
        whole = np.floor(weights)
        draw = np.random.default_rng(self.plan.seed).random(len(rows))
        chosen = np.repeat(rows, (whole + (draw < weights - whole)).astype(int))
        if not len(chosen):
            raise UserError(f"data.weights={self.weights}: no row is left to train on")
        return chosen


def _faults(sets: Mapping[str, Any], weights: Mapping[str, float]) -> Iterator[str]:
    if not sets:
        yield "data.sets: there is none; add one with +data@data.sets.alpaca=alpaca"
    for name, weight in weights.items():
        if name not in sets:
            yield f"data.weights.{name}: there is no such set; there are {', '.join(sets)}"
        elif isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            yield f"data.weights.{name}={weight}: must be a number of at least 0"
