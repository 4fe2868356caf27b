"""Examples of val and test whose prompt is nearly one in train (``similar_texts``), listed with their places."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from llmft.data.preprocessing.arrow_store import ArrowTable, Examples
from llmft.data.preprocessing.cache import Cache, key_of
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.preprocessing.similar_texts import THRESHOLD, similar
from llmft.data.preprocessing.word_grams import WordGrams, jaccard
from llmft.utils.errors import UserError

SAMPLE = 2000  # examples that show which grams belong to a template
LISTED, SHOWN = 200, 5  # in run.json, in the terminal


class NearDuplicate(NamedTuple):
    """A held-out example, and the first example of train with nearly the same prompt.

    Attributes:
        split: The split of the held-out example.
        example: Its number among all examples.
        place: Its place.
        train: The place of the example of train.
        prompt: Similarity of the prompts, 0.7 to 1.
        reply: Similarity of the replies, 0 to 1.
    """

    split: str
    example: int
    place: str
    train: str
    prompt: float
    reply: float

    def __str__(self) -> str:
        return f"{self.place}: its prompt is nearly that of {self.train} (prompt {self.prompt:.2f}, reply {self.reply:.2f})"


def prompts_of(table: ArrowTable, chosen: np.ndarray) -> Iterator[tuple[np.ndarray, list[str]]]:
    """The chosen examples of each record batch and the texts of their prompts; no other example is decoded.

    Args:
        table: Of ``write_examples``.
        chosen: Whether each example is, [examples].
    """
    column = table.reader.schema.get_field_index("context")
    for batch, (start, end) in enumerate(zip(table.starts, table.starts[1:], strict=False)):
        numbers = np.flatnonzero(chosen[start:end])
        if len(numbers):
            contexts = table.reader.get_batch(batch).column(column).take(pa.array(numbers)).to_pylist()
            yield numbers + start, [_text(context) for context in contexts]


def _text(context: str) -> str:
    return "\n".join(f"{content}\n{more}" for _, content, more, *_ in json.loads(context))


def search(table: ArrowTable, is_train: np.ndarray, is_held: np.ndarray) -> list[tuple[int, int, float, float]]:
    """The held-out examples whose prompt is nearly one in train.

    Args:
        table: The examples.
        is_train: Whether each is in train, [examples].
        is_held: Whether each is in another split, [examples].

    Returns:
        The numbers of the held-out example and of the first such example of train, similarity of prompts and of replies.
    """
    step = math.ceil(len(table) / SAMPLE)
    sample = _grams(table, np.arange(len(table)) % step == 0)
    held, train = np.flatnonzero(is_held), np.flatnonzero(is_train)
    parts = (WordGrams.of(texts) for _, texts in prompts_of(table, is_train))
    pairs = similar(_grams(table, is_held), parts, sample)
    numbers = [(int(held[one]), int(train[other])) for one, other, _ in pairs]
    replies = [_replies(table, pair) for pair in numbers]
    return [(*pair, score, reply) for pair, (_, _, score), reply in zip(numbers, pairs, replies, strict=True)]


def _grams(table: ArrowTable, chosen: np.ndarray) -> WordGrams:
    return WordGrams.joined([WordGrams.of(texts) for _, texts in prompts_of(table, chosen)])


def _replies(table: ArrowTable, pair: Sequence[int]) -> float:
    """Similarity of two replies."""
    texts = ["\n".join(example.reply.texts()) for example in Examples(table, np.array(pair))]
    grams = WordGrams.of(texts)
    return jaccard(grams.text(0), grams.text(1))


def find(table: ArrowTable, splits: Mapping[str, np.ndarray], cache: Cache, examples_key: str) -> list[NearDuplicate]:
    """The examples of val, test and further validation sets whose prompt is nearly one in train.

    Args:
        table: The examples.
        splits: The numbers of each split's examples.
        cache: Where the result is kept.
        examples_key: The cache key of the examples.
    """
    names = [name for name, numbers in splits.items() if name != "train" and len(numbers)]
    if not names:
        return []
    of = np.full(len(table), -1)
    for number, name in enumerate(names):
        of[splits[name]] = number
    is_train = np.zeros(len(table), bool)
    is_train[splits["train"]] = True

    def build(into: Path) -> None:
        np.array(search(table, is_train, of >= 0), np.float64).tofile(into / "pairs.bin")

    digests = {name: hashlib.sha256(numbers.tobytes()).hexdigest() for name, numbers in splits.items()}
    folder = cache.folder("near-duplicates", key_of(examples=examples_key, splits=digests), build)
    pairs = np.fromfile(folder / "pairs.bin", np.float64).reshape(-1, 4).tolist()

    def place(number: float) -> str:
        return str(table.row(int(number))["place"])

    return [
        NearDuplicate(names[of[int(one)]], int(one), place(one), place(other), score, reply)
        for one, other, score, reply in pairs
    ]


def without(
    indices: dict[str, np.ndarray], found: Sequence[NearDuplicate], owners: np.ndarray, counts: RowCounts
) -> dict[str, np.ndarray]:
    """The splits without the rows of these examples, which are counted as dropped.

    Args:
        indices: The row numbers of each split.
        found: Of ``find``.
        owners: The number of each row's example, [rows].
        counts: Dropped examples are counted here.

    Raises:
        UserError: No row of a split is left.
    """
    kept, gone = dict(indices), np.array([duplicate.example for duplicate in found], int)
    for duplicate in found:
        counts.drop(
            duplicate.place, "prompt", f"is nearly that of {duplicate.train}", f"in train and {duplicate.split}, nearly"
        )
    counts.kept -= len(found)
    for name, rows in indices.items():
        kept[name] = rows[~np.isin(owners[rows], gone)] if name != "train" else rows
        if len(rows) and not len(kept[name]):
            raise UserError(
                f"data.near_duplicates=drop: every prompt of {name} is nearly one in train; no row of {name} is left"
            )
    return kept


def summary(policy: str, found: Sequence[NearDuplicate] | None) -> dict[str, Any]:
    """What was found as JSON, the first ones with their places; ``found`` is None if nothing was searched."""
    if found is None:
        return {"policy": policy, "found": None}
    listed = [
        {"split": d.split, "place": d.place, "train": d.train, "prompt": d.prompt, "reply": d.reply} for d in found
    ]
    return {"policy": policy, "threshold": THRESHOLD, "found": len(found), "examples": listed[:LISTED]}


def lines(policy: str, found: Sequence[NearDuplicate] | None) -> list[str]:
    """The first of them with their places, or why they were not searched (``found`` is None)."""
    if found is None:
        return ["near-duplicates: not searched in a stream"] if policy != "off" else []
    shown = [f"near-duplicate in {duplicate.split}: {duplicate}" for duplicate in found[:SHOWN]]
    more = len(found) - SHOWN
    return [*shown, *([f"and {more:,} more near-duplicates"] if more > 0 else [])]
