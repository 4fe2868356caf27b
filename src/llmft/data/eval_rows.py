"""The examples of a split that are generated for and scored."""

from typing import NamedTuple

import numpy as np

from llmft.data.datamodule import InstructionDataModule
from llmft.data.preprocessing.arrow_store import Examples, Rows
from llmft.data.records import Example
from llmft.data.tokenization.codec import EncodedExample


class EvalRows(NamedTuple):
    """Examples with their encoded rows, the ``split`` they come from, and the ``total`` number of its rows."""

    split: str
    total: int
    examples: list[Example]
    encoded: list[EncodedExample]


def first_rows(data: InstructionDataModule, limit: int | None, split: str) -> EvalRows:
    """The first rows of a split; of ``val``, or else ``train``, if it is empty.

    Args:
        data: After ``setup``.
        limit: Maximum number of rows; None for all.
        split: ``train``, ``val`` or ``test``.
    """
    split = next(name for name in (split, "val", "train") if len(data.indices[name]))
    rows = data.indices[split][:limit]
    # of a conversation that became several rows, the last one: its answer is the example's
    last = dict(zip(data.row_columns["example"][rows].tolist(), rows.tolist(), strict=True))
    examples = Examples(data.examples.table, np.array([*last]))
    encoded = Rows(data.table, np.array([*last.values()]))
    return EvalRows(split, len(data.indices[split]), list(examples), list(encoded))
