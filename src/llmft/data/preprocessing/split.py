"""Which examples are train, test and val: by what they are, by position, by a shuffle, or (of a stream) by a hash."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from llmft.data.preprocessing.split_keys import FREE, SPLITS
from llmft.data.records import Example, Turn
from llmft.utils.errors import UserError

NO_SPLIT = "data.split.val=0 data.split.test=0 trains on all of them"


def split_rows(rows: int, split: Mapping[str, float | None], split_by: str, seed: int) -> dict[str, np.ndarray]:
    """Split rows: train first, then test, then val.

    Args:
        rows: Number of rows, in the order of the file.
        split: Shares of ``train``, ``test`` and ``val``; a share above 0 is at least one row, ``train`` None takes the rest.
        split_by: ``shuffle`` (by a permutation of ``seed``) or ``position``.
        seed: Seed of the permutation.

    Returns:
        The row numbers of each split.

    Raises:
        UserError: No row is left to train on.
    """
    order = np.arange(rows)
    if split_by == "shuffle":
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).numpy()
    test, val = (_size(rows, split[name]) for name in ("test", "val"))
    rest = rows - test - val
    train = rest if split["train"] is None else min(rest, _size(rows, split["train"]))
    if train < 1:
        raise UserError(
            f"data.split={dict(split)}: {rows} row{'s leave' if rows != 1 else ' leaves'} none to train on; {NO_SPLIT}"
        )
    return {
        "train": order[:train],
        "test": order[train : train + test],
        "val": order[train + test : train + test + val],
    }


def _size(rows: int, share: float | None) -> int:
    return max(1, round(rows * share)) if share else 0


@dataclass(frozen=True)
class SplitConfig:
    """The keys of ``conf/data`` that decide which rows are train, test and val."""

    split: Mapping[str, float | None]
    split_by: str
    leakage: str
    seed: int

    @property
    def by_number(self) -> bool:
        """Whether the number of an example decides, not what it is (``shuffle``, ``position``)."""
        return self.split_by in ("shuffle", "position")

    def assign(self, numbers: np.ndarray, total: int) -> dict[str, np.ndarray]:
        """The positions in ``numbers`` of each split's, as ``split_rows``.

        ``position`` counts all examples, so that the split does not depend on which of them a tokenizer finds too long;
        ``shuffle`` permutes those that are left, as the first version did.

        Args:
            numbers: Numbers of the examples that have rows, in ascending order.
            total: Number of examples.

        Raises:
            UserError: No row is left to train on.
        """
        if self.split_by == "shuffle":
            return split_rows(len(numbers), self.split, self.split_by, self.seed)
        parts = split_rows(total, self.split, self.split_by, self.seed)
        found = {name: np.flatnonzero(np.isin(numbers, part)) for name, part in parts.items()}
        if not len(found["train"]):
            raise UserError(f"data.split_by=position: all {len(parts['train'])} examples of train were dropped")
        return found


def split_by_identity(
    owners: np.ndarray, groups: np.ndarray, fixed: np.ndarray, split: Mapping[str, float | None], seed: int
) -> tuple[dict[str, np.ndarray], int]:
    """Split the rows of examples by their groups; a group is never divided, and what a tokenizer drops changes nothing.

    The groups are ordered by a hash of group and seed; the first ones are test, the next ones val, all others train.

    Args:
        owners: The number of each row's example, [rows], in ascending order.
        groups: Hash of each example's group, [examples], also of examples without rows.
        fixed: Number in ``SPLITS`` of each example whose row or file names its split, else ``FREE``, [examples].
        split: Fractions of the other examples; a fraction above 0 is at least one group, ``train`` None takes the rest.
        seed: Seed of the order.

    Returns:
        The row numbers of each split, in the order of the file, and how many examples are in none.

    Raises:
        UserError: No example is left to train on.
    """
    codes = fixed.copy()
    free = np.flatnonzero(fixed == FREE)
    if len(free):
        codes[free] = _codes(groups[free], split, seed)
    of_rows = codes[owners]
    parts = {name: np.flatnonzero(of_rows == code) for code, name in enumerate(SPLITS)}
    if not len(parts["train"]):
        counts = ", ".join(f"{name} {int((codes == code).sum())}" for code, name in enumerate(SPLITS))
        different = len(np.unique(groups[free]))
        ways = [NO_SPLIT] if len(free) else ["no row is one of train"]
        ways += ["data.split_by=row or shuffle divides equal prompts"] if len(free) > different else []
        raise UserError(
            f"data.split={dict(split)}: no example is left to train on ({counts}; {different} different"
            f" prompts or groups); {', '.join(ways)}"
        )
    unused = np.unique(owners[of_rows == FREE])
    return parts, len(unused)


def _codes(groups: np.ndarray, split: Mapping[str, float | None], seed: int) -> np.ndarray:
    """The number in ``SPLITS`` of each example, or ``FREE`` beyond a share of ``train``."""
    unique, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    left = np.argsort(mixed(unique, seed), kind="stable")
    found = np.full(len(unique), FREE, np.int8)
    for name in ("test", "val", "train"):
        share = split[name]
        wanted = len(groups) if share is None else _size(len(groups), share)
        taken = _fitting(sizes[left], wanted)
        found[left[taken]] = SPLITS.index(name)
        left = left[~taken]
    return found[numbers]


def _fitting(sizes: np.ndarray, wanted: int) -> np.ndarray:
    """Which groups make up ``wanted`` examples, in order; one that would exceed it is left out, but for the only one."""
    taken = np.zeros(len(sizes), bool)
    if not wanted or not len(sizes):
        return taken
    first = int(np.searchsorted(np.cumsum(sizes), wanted, side="right"))  # these fit together
    taken[:first] = True
    rest = wanted - int(sizes[:first].sum())
    for position in range(first, len(sizes)):
        if not rest:
            break
        if sizes[position] <= rest:
            taken[position] = True
            rest -= int(sizes[position])
    if not taken.any():
        taken[int(np.argmin(sizes))] = True
    return taken


def mixed(groups: np.ndarray, seed: int) -> np.ndarray:
    """A 64-bit hash of each group and the seed (the finalizer of SplitMix64; Steele et al., 2014)."""
    state = groups.view(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def split_groups(
    owners: np.ndarray, assign: Callable[[np.ndarray], dict[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], int]:
    """Split rows so that all rows of one example (the turns of a conversation) are in the same split.

    Args:
        owners: The number of each row's example, [rows], in ascending order.
        assign: The numbers of the examples -> the positions among them of each split's.

    Returns:
        The row numbers of each split, and how many examples are in none.
    """
    starts = np.concatenate([[0], np.flatnonzero(np.diff(owners)) + 1])
    sizes = np.diff(np.append(starts, len(owners)))
    parts = assign(owners[starts])
    unused = len(starts) - sum(map(len, parts.values()))
    return {name: spread(starts[part], sizes[part]) for name, part in parts.items()}, unused


def _shown(turn: Turn) -> str:
    """A turn as text; one of a text alone as in earlier versions, so that a stream that is resumed keeps its splits."""
    more = "".join(f", {value!r}" for value in (turn.reasoning, turn.tool_calls) if value)
    return f"Turn(role={turn.role!r}, content={turn.content!r}, input={turn.input!r}{more})"


class HashSplit:
    """Splits the rows of a stream by a hash of the context and the seed, so that equal prompts are in the same split.

    Args:
        split: As of ``split_rows``; rows beyond a share of ``train`` are in no split.
        seed: Another seed gives another split.
        limit: Maximum rows of val and of test; they are taken from the start of the stream, further rows are not used.
    """

    def __init__(self, split: Mapping[str, float | None], seed: int, limit: int) -> None:
        self.seed, self.limit = seed, limit
        test, val, train = split["test"] or 0.0, split["val"] or 0.0, split["train"]
        self.shares = {"test": test, "val": val, "train": 1 - test - val if train is None else train}
        self.names: list[str] = []

    def split_of(self, example: Example) -> str | None:
        """``train``, ``test``, ``val`` or None."""
        context = tuple(map(_shown, example.context))
        text = f"({self.seed!r}, ({', '.join(context)}{',' * (len(context) == 1)}))".encode(errors="surrogatepass")
        drawn = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64
        for name, share in self.shares.items():
            if drawn < share:
                return name
            drawn -= share
        return None

    def first(self, examples: Iterable[Example]) -> Iterator[Example]:
        """The first examples of each split (at most ``limit`` of each); sets ``names`` to their splits."""
        left = {name: self.limit for name, share in self.shares.items() if share}
        self.names = []
        for example in examples:
            name = self.split_of(example)
            if name and left[name]:
                left[name] -= 1
                self.names.append(name)
                yield example
            if not any(left.values()):
                return

    def check(self, indices: Mapping[str, np.ndarray]) -> None:
        """Refuse a stream without a row of a split that has a fraction.

        Raises:
            UserError: There is none: the stream is short, and a hash has put its rows elsewhere.
        """
        for name, share in self.shares.items():
            if share and name != "train" and not len(indices[name]):
                raise UserError(
                    f"data.split.{name}={share:g}: no row of the stream is in {name}, as a hash of each prompt decides; "
                    f"set a larger fraction, data.split.{name}=0, or data.streaming=false"
                )

    def assign(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """The positions in ``examples`` (indices into ``names``) of each split's."""
        names = np.array(self.names)[examples]
        return {name: np.flatnonzero(names == name) for name in ("train", "test", "val")}


def spread(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The row numbers of groups of rows: ``starts`` [4, 0] and ``sizes`` [2, 3] give 4, 5, 0, 1, 2."""
    ends = np.cumsum(sizes)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
    return np.repeat(starts, sizes) + within
