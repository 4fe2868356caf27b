"""Texts that are similar to one of others: an exact search by sets of word 5-grams.

The similarity of two texts is the Jaccard index of their word 5-grams (the measure that Lee et al., 2022, "Deduplicating
Training Data Makes Language Models Better", estimate by MinHash); one other word in 33 gives 0.7. Grams that many texts share
belong to a template or a system prompt and are not compared. Of each wanted text with n grams, the rarest n - ceil(0.7 n) + 1 are
indexed: a text that is similar enough has one of them (the prefix filter of Chaudhuri et al., 2006, "A Primitive Operator for
Similarity Joins in Data Cleaning"), so that none is missed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmft.data.preprocessing.word_grams import WordGrams, jaccard

THRESHOLD = 0.7
# Grams of more than a tenth of the texts, and of more than 20 or of half of them, belong to a template.
SHARE, FEW = 0.1, 20


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
