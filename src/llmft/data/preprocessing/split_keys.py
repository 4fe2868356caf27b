"""The group of an example and the split that its row names: what a split by identity follows, before any tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmft.data.preprocessing.row_columns import hash_of, identity, normalized
from llmft.data.records import Example, Row, RowError, shown
from llmft.data.split_names import split_named

SPLITS = ("train", "test", "val")
TRAIN, FREE = 0, -1
EXTRA = "val/"  # and the name of a file of data.extra_val: such a split, and the prefix of its metrics


class SplitFieldError(RowError):
    """The field that ``data.split_by`` names is missing or has an unexpected value; the row is valid otherwise."""


class SplitKey(NamedTuple):
    """What decides the split of an example.

    Attributes:
        group: Hash; examples of one group are in the same split.
        split: Number in ``SPLITS``, or one of the numbers after them (``data.extra_val``), or ``FREE`` if the group and the
            seed decide.
    """

    group: int = 0
    split: int = FREE


def own_file_key(split: str) -> str:
    """The key of ``conf/data`` that names the file of a split: ``data.val_path``, or ``data.extra_val.NAME``."""
    return f"data.{split}_path" if split in SPLITS else f"data.extra_val.{split.removeprefix(EXTRA)}"


def split_key_of(example: Example, row: Row, split_by: str, split: int | None = None) -> SplitKey:
    """The split key of an example.

    Args:
        example: The example.
        row: Its raw row.
        split_by: ``data.split_by``.
        split: Number of the split that its file is or names (``data.val_path``, ``data.test_path``, ``data.extra_val``).

    Raises:
        SplitFieldError: The field of ``group:NAME`` or ``column:NAME`` is missing or has an unexpected value.
    """
    how, _, field = split_by.partition(":")
    if split is None and how == "column":
        split = SPLITS.index(_named(row, field))
    if split:
        return SplitKey(0, split)
    if split == TRAIN:  # of these, the splits that no row names are taken
        return SplitKey(hash_of(normalized(identity(example.context, example.tools))), TRAIN)
    if how == "group":
        return SplitKey(hash_of(_value(row, field)))
    if how == "position":
        return SplitKey()
    prompt = normalized(identity(example.context, example.tools))
    return SplitKey(hash_of(prompt if how == "prompt" else f"{prompt}\0{_reply(example)}"))


def _reply(example: Example) -> str:
    """The normalized reply with its reasoning and its calls; of one without them the text alone, as in earlier versions."""
    content, *more = example.reply.texts()
    return normalized("\2".join((content, *filter(None, more))))


def _value(row: Row, field: str) -> str:
    value = row.get(field)
    if value is None or isinstance(value, list | dict) or not str(value).strip():
        raise SplitFieldError(
            field, f"must be a string or a number, as data.split_by=group:{field} groups by it; is {shown(value)}"
        )
    return str(value)


def _named(row: Row, field: str) -> str:
    value = row.get(field)
    if (name := split_named(value)) is None:
        raise SplitFieldError(
            field, f"must be train, val or test, as data.split_by=column:{field} reads it; is {shown(value)}"
        )
    return name


def write_split_keys(folder: Path, keys: Sequence[SplitKey]) -> None:
    """Append the split keys of some examples to the files of a folder."""
    for name, kind, values in (
        ("groups", np.int64, [key.group for key in keys]),
        ("splits", np.int8, [key.split for key in keys]),
    ):
        with (folder / f"{name}.bin").open("ab") as file:
            np.array(values, kind).tofile(file)


def read_split_keys(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The groups [examples] and the splits [examples] of ``write_split_keys``."""
    return np.fromfile(folder / "groups.bin", np.int64), np.fromfile(folder / "splits.bin", np.int8)
