"""Rows that are generated for."""

from itertools import islice
from typing import NamedTuple

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example
from llmft.data.tokenization.codec import EncodedExample


class EvalRows(NamedTuple):
    """Rows to be asked: ``split`` they come from, and ``total`` of that split."""

    split: str
    total: int
    examples: list[Example]
    encoded: list[EncodedExample]


def asked_rows(data: InstructionDataModule, limit: int | None, split: str) -> EvalRows:
    """The first rows of a split; of ``val``, or else ``train``, where that has none."""
    split = next(name for name in (split, "val", "train") if data.encoded[name])
    # of a conversation that became several rows, the last: its answer is the example's
    encoded = list({row.place: row for row in islice(data.encoded[split], limit)}.values())
    wanted = {row.place for row in encoded}
    examples = {example.place: example for example in data.examples if example.place in wanted}
    return EvalRows(split, len(data.encoded[split]), [examples[row.place] for row in encoded], encoded)
