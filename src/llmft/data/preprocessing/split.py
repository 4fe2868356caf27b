"""How many examples there are -> which of them are train, test and val."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch

from llmft.data.records import Example
from llmft.utils.errors import UserError


def split_rows(rows: int, split: Mapping[str, float | None], split_by: str, seed: int) -> dict[str, np.ndarray]:
    """Deal rows out: train first, then test, then val.

    Args:
        rows: How many there are, in the order of the file.
        split: Shares of ``train``, ``test`` and ``val``; a share above 0 is at least one row, ``train`` None takes the rest.
        split_by: ``shuffle`` (by a permutation of ``seed``) or ``position``.
        seed: Of the permutation.

    Returns:
        The numbers of the rows of each split.

    Raises:
        UserError: Nothing is left to train on.
    """
    order = np.arange(rows)
    if split_by == "shuffle":
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).numpy()
    test, val = (_size(rows, split[name]) for name in ("test", "val"))
    rest = rows - test - val
    train = rest if split["train"] is None else min(rest, _size(rows, split["train"]))
    if train < 1:
        raise UserError(f"data.split={dict(split)}: {rows} rows leave none to train on; lower val and test")
    return {
        "train": order[:train],
        "test": order[train : train + test],
        "val": order[train + test : train + test + val],
    }


def _size(rows: int, share: float | None) -> int:
    return max(1, round(rows * share)) if share else 0


class HashSplit:
    """The split of a row of a stream, which a hash of its context and the seed decides: one prompt, one split.

    Args:
        split: As of ``deal``; rows beyond a share of ``train`` are in none.
        seed: Another one, other rows.
        most: So many rows of val and of test each are looked for at the start; others of their share are not used.
    """

    def __init__(self, split: Mapping[str, float | None], seed: int, most: int) -> None:
        self.seed, self.most = seed, most
        test, val, train = split["test"] or 0.0, split["val"] or 0.0, split["train"]
        self.shares = {"test": test, "val": val, "train": 1 - test - val if train is None else train}
        self.names: list[str] = []

    def split_of(self, example: Example) -> str | None:
        """``train``, ``test``, ``val`` or None."""
        text = repr((self.seed, example.context)).encode(errors="surrogatepass")
        drawn = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64
        for name, share in self.shares.items():
            if drawn < share:
                return name
            drawn -= share
        return None

    def first(self, examples: Iterable[Example]) -> Iterator[Example]:
        """The first rows of each split (``most`` of each), whose splits are then in ``names``."""
        left = {name: self.most for name, share in self.shares.items() if share}
        self.names = []
        for example in examples:
            name = self.split_of(example)
            if name and left[name]:
                left[name] -= 1
                self.names.append(name)
                yield example
            if not any(left.values()):
                return

    def dealt(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """Where among these numbers of ``names`` each split's are."""
        names = np.array(self.names)[examples]
        return {name: np.flatnonzero(names == name) for name in ("train", "test", "val")}


def spread(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The numbers of the rows of groups: ``starts`` [4, 0] with ``sizes`` [2, 3] are 4, 5, 0, 1, 2."""
    ends = np.cumsum(sizes)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
    return np.repeat(starts, sizes) + within
