"""Examples of val and test whose prompt is nearly one in train: an exact search for similar sets of word 5-grams.

The similarity of two prompts is the Jaccard index of their word 5-grams (the measure that Lee et al., 2022, "Deduplicating
Training Data Makes Language Models Better", estimate by MinHash); one other word in 33 gives 0.7. Grams that many examples share
belong to a template or a system prompt and are not compared. Of each held-out prompt with n grams, the rarest n - ceil(0.7 n) + 1
are indexed: a prompt of train that is similar enough has one of them (the prefix filter of Chaudhuri et al., 2006, "A Primitive
Operator for Similarity Joins in Data Cleaning"), so that none is missed.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from llmft.data.preprocessing.arrow_store import ArrowTable, Examples
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.preprocessing.word_grams import WordGrams, jaccard
from llmft.utils.errors import UserError

THRESHOLD = 0.7
# Examples that show which grams belong to a template: those of more than a tenth of them.
SAMPLE, SHARE, FEW = 2000, 0.1, 20
LISTED = 200  # in run.json


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


@dataclass(frozen=True)
class Index:
    """The grams by which held-out prompts are found.

    Attributes:
        values: Grams in ascending order, [indexed].
        owners: The number of each one's prompt, [indexed].
        sizes: Number of grams of each prompt, indexed or not, [prompts].
        rest: Number of those that are not indexed, [prompts].
    """

    values: np.ndarray
    owners: np.ndarray
    sizes: np.ndarray
    rest: np.ndarray

    @classmethod
    def of(cls, grams: WordGrams, sample: np.ndarray) -> "Index":
        """The rarest grams of each text, as they occur in all texts and in a sample (an ascending array with repeats)."""
        unique, numbers, counts = np.unique(grams.values, return_inverse=True, return_counts=True)
        counts += np.searchsorted(sample, unique, "right") - np.searchsorted(sample, unique, "left")
        owners = grams.owners
        order = np.lexsort((grams.values, counts[numbers], owners))
        rank = np.arange(len(owners)) - grams.starts[owners]
        wanted = grams.sizes - np.ceil(THRESHOLD * grams.sizes - 1e-9).astype(int) + 1
        chosen = order[rank < wanted[owners]]
        chosen = chosen[np.argsort(grams.values[chosen], kind="stable")]
        return cls(grams.values[chosen], owners[chosen], grams.sizes, grams.sizes - wanted)

    def without(self, numbers: Sequence[int]) -> "Index":
        """Without the grams of these prompts."""
        kept = ~np.isin(self.owners, numbers)
        return replace(self, values=self.values[kept], owners=self.owners[kept])

    def candidates(self, grams: WordGrams) -> np.ndarray:
        """Pairs of an indexed text and one of ``grams`` that have enough indexed grams in common, in order, [pairs, 2].

        Two sets of a and b grams with a Jaccard index t have t / (1 + t) (a + b) in common; those that are not indexed may all be
        among them.
        """
        left = np.searchsorted(self.values, grams.values, "left")
        counts = np.searchsorted(self.values, grams.values, "right") - left
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        held = self.owners[np.repeat(left, counts) + within]
        keys, shared = np.unique(held.astype(np.int64) << 32 | np.repeat(grams.owners, counts), return_counts=True)
        held, other = keys >> 32, keys & 0xFFFFFFFF
        needed = THRESHOLD / (1 + THRESHOLD) * (self.sizes[held] + grams.sizes[other]) - self.rest[held]
        return np.stack([held, other], axis=1)[shared >= needed - 1e-9]


def template_grams(sample: WordGrams) -> np.ndarray:
    """The grams that belong to a template or a system prompt, in ascending order: those of many of the texts."""
    texts = len(sample.sizes)
    unique, counts = np.unique(sample.values, return_counts=True)
    return unique[counts > max(SHARE * texts, min(FEW, texts / 2))]


def similar(held: WordGrams, train: Iterable[WordGrams], sample: WordGrams) -> list[tuple[int, int, float]]:
    """The first text of ``train`` that is similar to each of ``held``, with its similarity.

    Args:
        held: Of the held-out prompts.
        train: Of the prompts of train, in parts.
        sample: Of some of all prompts.
    """
    common = template_grams(sample)
    held = held.without(common)
    index = Index.of(held, np.sort(sample.values))
    found: dict[int, tuple[int, float]] = {}
    before = 0
    for part in train:
        own, known = part.without(common), len(found)
        for one, other in index.candidates(own).tolist():
            if one not in found and (score := jaccard(held.text(one), own.text(other))) >= THRESHOLD - 1e-9:
                found[one] = (before + other, score)
        index = index.without([*found]) if len(found) > known else index
        before += len(own.sizes)
    return [(one, *found[one]) for one in sorted(found)]


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


def near_duplicates(
    table: ArrowTable, splits: Mapping[str, np.ndarray], folder: Callable[[Callable[[Path], None]], Path]
) -> list[NearDuplicate]:
    """The examples of val, test and further validation sets whose prompt is nearly one in train.

    Args:
        table: The examples.
        splits: The numbers of each split's examples.
        folder: Gives a cached folder, filled by its argument.
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

    pairs = np.fromfile(folder(build) / "pairs.bin", np.float64).reshape(-1, 4).tolist()

    def place(number: float) -> str:
        return str(table.row(int(number))["place"])

    return [
        NearDuplicate(names[of[int(one)]], int(one), place(one), place(other), score, reply)
        for one, other, score, reply in pairs
    ]


def without_near_duplicates(
    indices: dict[str, np.ndarray], found: Sequence[NearDuplicate], owners: np.ndarray, counts: RowCounts
) -> dict[str, np.ndarray]:
    """The splits without the rows of these examples, which are counted as dropped.

    Args:
        indices: The row numbers of each split.
        found: Of ``near_duplicates``.
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
