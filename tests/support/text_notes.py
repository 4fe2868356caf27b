"""The notes on the texts of some examples, without a tokenizer."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from llmft.data.preprocessing.row_columns import row_columns
from llmft.data.preprocessing.text_notes import note_line, text_notes
from llmft.data.records import Example

ROW: Any = SimpleNamespace(input_ids=[], labels=[], joined=False, answer_length=0, lost="")


def notes_of(examples: Sequence[Example]) -> list[str]:
    """The notes as lines."""
    table = [{**row_columns(example, ROW), "example": n} for n, example in enumerate(examples)]
    columns: Any = {name: np.array([row[name] for row in table]) for name in table[0]}
    store: Any = SimpleNamespace(make=lambda number: examples[number])
    return [note_line(note) for note in text_notes(columns, store, np.arange(len(examples)))]
