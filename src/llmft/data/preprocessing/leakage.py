"""Prompts of val and test that are also in train."""

from collections.abc import Mapping

import numpy as np

from llmft.data.preprocessing.arrow_store import ArrowTable, RowColumns
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.preprocessing.word_grams import is_among
from llmft.utils.errors import UserError


def leaks(prompts: np.ndarray, indices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows of val and test whose prompt is also in train.

    Args:
        prompts: Hash of each row's prompt, [rows].
        indices: The row numbers of each split.
    """
    train = np.sort(prompts[indices["train"]])
    return {name: rows[is_among(prompts[rows], train)] for name, rows in indices.items() if name != "train"}


def in_train(columns: RowColumns, indices: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Whether the prompt of each row is in train too, except for case and white space: [rows], bool."""
    return np.isin(columns["prompt_like"][rows], columns["prompt_like"][indices["train"]])


def without_leaks(
    indices: dict[str, np.ndarray], columns: RowColumns, table: ArrowTable, counts: RowCounts, policy: str
) -> dict[str, np.ndarray]:
    """The splits without the val and test examples whose prompt is also in train (a conversation is removed as a whole).

    Args:
        indices: The row numbers of each split.
        columns: Of these rows.
        table: The encoded rows, for their places.
        counts: Dropped examples are counted here.
        policy: ``drop`` or ``error``.

    Raises:
        UserError: There are leaks (``error``), or no row of a split is left (``drop``).
    """
    leaked, owners = leaks(columns["prompt"], indices), columns["example"]
    if policy == "error" and any(map(len, leaked.values())):
        faults = [f"{table.row(row)['place']}: its prompt is also in train" for part in leaked.values() for row in part]
        raise UserError.from_faults("data.leakage=error", faults)
    kept = dict(indices)
    for name, rows in leaked.items():
        gone = np.isin(owners[indices[name]], owners[rows])
        places = dict.fromkeys(table.row(row)["place"] for row in indices[name][gone])
        for place in places:
            counts.drop(place, "prompt", f"is in train and in {name}", f"in train and {name}")
        counts.kept -= len(places)
        kept[name] = indices[name][~gone]
        if len(places) and not len(kept[name]):
            raise UserError(
                f"data.leakage=drop: every row of {name} has its prompt in train too; no row of {name} is left"
            )
    return kept
