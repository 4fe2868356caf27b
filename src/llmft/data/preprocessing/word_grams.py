"""Texts as sets of hashed word 5-grams, by which texts that are nearly equal are found."""

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmft.data.preprocessing.row_columns import WORD, normalized

SIZE = 5
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit is lost


@dataclass(frozen=True)
class WordGrams:
    """The grams of some texts, each text's without repeats and in ascending order.

    Attributes:
        values: Hashes, [grams], uint64.
        starts: Where each text's begin, and their end, [texts + 1].
    """

    values: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> "WordGrams":
        """The grams of each text: case, width, punctuation and white space make no difference.

        A text of fewer than five words has one gram, all of its words; one without words has none.
        """
        hashes = [_word_hashes(text) for text in texts]
        sizes = np.array([len(words) for words in hashes], np.int64)
        flat = np.array(
            [word for words in hashes for word in words + [0] * (SIZE - len(words) if words else 0)], np.uint64
        )
        padded = np.where(sizes, np.maximum(sizes, SIZE), 0)
        owners = np.repeat(np.arange(len(texts)), padded)
        within = np.arange(len(flat)) - np.repeat(np.cumsum(padded) - padded, padded)
        valid = within <= padded[owners] - SIZE
        grams = np.zeros(len(flat), np.uint64)
        for place in range(SIZE):
            grams = (grams ^ np.roll(flat, -place)) * FACTOR
            grams ^= grams >> np.uint64(29)
        return cls._sorted(grams[valid], owners[valid], len(texts))

    @classmethod
    def _sorted(cls, values: np.ndarray, owners: np.ndarray, texts: int) -> "WordGrams":
        order = np.lexsort((values, owners))
        values, owners = values[order], owners[order]
        first = np.ones(len(values), bool)
        first[1:] = (values[1:] != values[:-1]) | (owners[1:] != owners[:-1])
        return cls(values[first], np.searchsorted(owners[first], np.arange(texts + 1)))

    @property
    def sizes(self) -> np.ndarray:
        """Number of grams of each text, [texts]."""
        return np.diff(self.starts)

    @property
    def owners(self) -> np.ndarray:
        """Number of each gram's text, [grams]."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def text(self, number: int) -> np.ndarray:
        """The grams of a text."""
        return self.values[self.starts[number] : self.starts[number + 1]]

    def without(self, values: np.ndarray) -> "WordGrams":
        """Without these grams, an ascending array."""
        kept = ~is_among(self.values, values)
        return WordGrams(self.values[kept], np.concatenate([[0], np.cumsum(kept)])[self.starts])

    @classmethod
    def joined(cls, parts: Sequence["WordGrams"]) -> "WordGrams":
        """The texts of several in one."""
        ends = np.cumsum([0, *(len(part.values) for part in parts)])
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends, strict=False)]
        return cls(np.concatenate([part.values for part in parts]), np.concatenate([*starts, ends[-1:]]))


def is_among(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Whether each of ``values`` is one of ``ascending``."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[places] == values


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Size of the intersection over that of the union of two sets of grams, each ascending; 1 of two empty ones."""
    both = int(is_among(one, other).sum())
    union = len(one) + len(other) - both
    return both / union if union else 1.0


def _word_hashes(text: str) -> list[int]:
    return [_word_hash(word) for word in WORD.findall(normalized(text))]


@functools.lru_cache(1 << 17)  # texts have few different words
def _word_hash(word: str) -> int:
    return zlib.crc32(word.encode(errors="surrogatepass")) + 1
