"""A mix of several data sets: each row keeps the name of its set, each set has a weight."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from llmft.config.schema.data import Data, MixData
from llmft.data.datamodule import InstructionDataModule, open_data
from llmft.data.preprocessing.read_examples import ExampleReader
from llmft.data.preprocessing.row_columns import hash_of
from llmft.data.preprocessing.split_keys import SPLITS
from llmft.data.records import Example, Row
from llmft.data.sources import Source, joined
from llmft.utils.errors import UserError

# Keys that each set has for itself; all others are those of the mix.
OWN = ("name", "path", "sha256", "revision", "subset", "hub_split", "system", "prompt", "limit")
OWN += ("val_path", "test_path", "extra_val", "encoding", "delimiter", "sheet")
OWN += ("metrics", "notice", "fields", "questions")


class Mix(InstructionDataModule):
    """The concatenated sets of ``data.sets``.

    Args:
        config: Each of its ``sets`` has its own class, path, system prompt and columns; the other keys are those of the mix
            (also the prompt: all rows of a run have one template). ``weights`` says how often the rows of a set are in a
            training epoch: 1 once, 3 three times, 0.25 a quarter of them (drawn by ``data.seed``). Validation and test have
            each row once.

    Raises:
        UserError: There are no sets, or a weight names no set.
    """

    def __init__(self, config: MixData) -> None:
        sets = {name: part for name, part in config.sets.items() if part is not None}
        if faults := list(_faults(sets, config.weights)):
            raise UserError.from_faults("data=mix", faults, shown=len(faults))
        keys = config.node()
        common = {name: keys[name] for name in Data.model_fields if name in keys and name not in OWN}
        self.parts = {name: open_data(part.replaced(common)) for name, part in sets.items()}
        for name, part in self.parts.items():
            part.section = f"data.sets.{name}"
        self.weights = {name: float(config.weights.get(name, 1)) for name in self.parts}
        super().__init__(config)

    @cached_property
    def source(self) -> Source:
        """All files of all sets."""
        return joined([part.source for part in self.parts.values()])

    def sources(self) -> dict[str, Source]:
        """The files of all sets, by the key that names them."""
        return {
            key.replace("data", f"data.sets.{name}", 1): source
            for name, part in self.parts.items()
            for key, source in part.sources().items()
        }

    def readers(self) -> list[ExampleReader]:
        """One for each set and file, those of ``data.extra_val`` last; their examples carry the name of the set."""
        limit, extra = self.config.limit, self.extra_val
        parts = [(name, reader) for name, part in self.parts.items() for reader in part.readers()]
        parts.sort(key=lambda part: part[1].split in extra)
        return [
            replace(reader, name=name, limit=reader.limit or limit, splits=(*SPLITS, *extra)) for name, reader in parts
        ]

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprints of all sets."""
        return {name: part.fingerprint() for name, part in self.parts.items()}

    @staticmethod
    def to_example(row: Row) -> Example:
        """Not used: each set has its own."""
        raise NotImplementedError

    def weighted(self, rows: np.ndarray) -> np.ndarray:
        """Repeat each row by the weight of its set; a fraction is a random choice of rows by the seed.

        Raises:
            UserError: No row is left.
        """
        sources = self.row_columns["source"][rows]
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
    for name in weights:
        if name not in sets:
            yield f"data.weights.{name}: there is no such set; there are {', '.join(sets)}"
