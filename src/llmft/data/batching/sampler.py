"""The batch sampler: which examples form a batch, in which order; the same for any number of workers, sharded over processes."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

# A sequence of a batch: the row numbers of its examples (one, unless it is packed).
Pack = tuple[int, ...]
# Tokens of an example: one number (causal), or two (seq2seq: source, target).
Size = tuple[int, ...]

# Examples are sorted by length within blocks of this many batches: little padding, and the order stays random.
GROUP_BATCHES = 16
# Packed and token-budget batches are formed within windows of this many shuffled examples.
WINDOW_ROWS = 2048


@dataclass(frozen=True)
class BatchingConfig:
    """How examples become batches: keys of ``conf/data``.

    Attributes:
        batching: ``rows``, ``grouped`` (by length), ``tokens`` (a token budget) or ``packed``.
        batch_size: Sequences per batch (``tokens`` has a budget instead); the last batch may be smaller.
        tokens_per_batch: ``tokens``: sequences times the longest one, source plus target; a longer example is its own batch.
        pack_tokens: ``packed``: tokens per sequence, for source and target each; None for the budgets.
        budgets: Max tokens of a prompt and of an answer.
        shuffle: Whether each epoch has a new order; else the order of the file.
        seed: Seed of every order.
    """

    batching: str
    batch_size: int
    tokens_per_batch: int
    pack_tokens: int | None
    budgets: tuple[int, int]
    shuffle: bool
    seed: int


class PlannedBatchSampler(Sampler[list[Pack]]):
    """A batch sampler whose order depends on seed and epoch only.

    ``rows`` and ``grouped`` shuffle the examples in each epoch. ``tokens`` and ``packed`` form the batches once and shuffle
    their order in each epoch, so that every epoch has the same number of steps.

    Args:
        sizes: Tokens of each example, [rows, parts]: one part (causal), or source and target.
        plan: How they become batches.
        rank: Of this process; consecutive batches go to consecutive processes.
        ranks: World size. If the batches cannot be sharded evenly, the last processes get a filler ``(~row,)``, a row
            without labels, so that all processes take the same number of steps.
    """

    def __init__(
        self, sizes: np.ndarray | Sequence[Size], plan: BatchingConfig, *, rank: int = 0, ranks: int = 1
    ) -> None:
        self.sizes, self.plan, self.rank, self.ranks = np.asarray(sizes, np.int32), plan, rank, ranks
        self.lengths = self.sizes.sum(axis=1)
        self.epoch = self.start = 0
        self.fixed = (
            {"tokens": self._by_budget, "packed": self._packed}[plan.batching]() if self._is_fixed else BatchIndex()
        )

    @property
    def sampler(self) -> "PlannedBatchSampler":
        """Lightning calls ``set_epoch`` on the sampler of a batch sampler: here they are the same object."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, and start at its first batch (unless ``resume_at`` has set this epoch already)."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def resume_at(self, epoch: int, batches: int) -> None:
        """Skip the first batches of an epoch, which a resumed run has already trained on."""
        self.epoch, self.start = epoch, batches

    def __len__(self) -> int:
        """Batches of an epoch for each process, including skipped ones."""
        return -(-self._total // self.ranks)

    def __iter__(self) -> Iterator[list[Pack]]:
        order, count = self._epoch(), len(self)
        for number in range(self.start * self.ranks + self.rank, count * self.ranks, self.ranks):
            yield self._batch(order, number) if number < self._total else [(~self._batch(order, 0)[0][0],)]

    def fill(self) -> float:
        """The fraction of an epoch's tokens that are not padding."""
        padded = 0
        if self._is_fixed:
            padded = sum(len(batch) * sum(self.widest(batch)) for batch in self.fixed)
        else:
            rows, _ = self._epoch()  # which examples form a batch does not depend on the order of the batches
            for part in self.sizes.T:
                starts = np.arange(0, len(rows), self.plan.batch_size)
                counts = np.diff(np.append(starts, len(rows)))
                padded += int((np.maximum.reduceat(part[rows], starts).astype(np.int64) * counts).sum())
        return int(self.lengths.sum(dtype=np.int64)) / padded

    @property
    def _is_fixed(self) -> bool:
        return self.plan.batching in ("tokens", "packed")

    @property
    def _total(self) -> int:
        """Batches of an epoch over all processes."""
        return len(self.fixed) if self._is_fixed else -(-len(self.sizes) // self.plan.batch_size)

    def _epoch(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The order of this epoch: of the rows, and of the batches that are cut from them (None: in order)."""
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.epoch)
        if self._is_fixed:
            return np.arange(0), self._shuffled(generator)
        rows = self._order(generator)
        if self.plan.batching == "rows":
            return rows, None
        block = self.plan.batch_size * GROUP_BATCHES
        parts = [sort_by_length(part, self.sizes, self.plan.batch_size) for part in _cut(rows, block)]
        return np.concatenate(parts), self._shuffled(generator)

    def _batch(self, order: tuple[np.ndarray, np.ndarray | None], number: int) -> list[Pack]:
        rows, batches = order
        chosen = number if batches is None else int(batches[number])
        if self._is_fixed:
            return self.fixed[chosen]
        size = self.plan.batch_size
        return [(row,) for row in rows[chosen * size : (chosen + 1) * size].tolist()]

    def _order(self, generator: torch.Generator) -> np.ndarray:
        rows = len(self.sizes)
        return torch.randperm(rows, generator=generator).numpy() if self.plan.shuffle else np.arange(rows)

    def _shuffled(self, generator: torch.Generator) -> np.ndarray | None:
        return torch.randperm(self._total, generator=generator).numpy() if self.plan.shuffle else None

    def _windows(self) -> list[np.ndarray]:
        return _cut(self._order(torch.Generator().manual_seed(self.plan.seed)), WINDOW_ROWS)

    def _by_budget(self) -> "BatchIndex":
        index = BatchIndex()
        for window in self._windows():
            expected = int(self.plan.tokens_per_batch / max(1.0, self.lengths[window].mean()))
            window = sort_by_length(window, self.sizes, max(1, expected))
            sizes = self.sizes[window].tolist()
            batch: list[int] = []
            widest = [0] * self.sizes.shape[1]
            for row, size in zip(window.tolist(), sizes, strict=True):
                grown = [max(pair) for pair in zip(widest, size, strict=True)]
                if batch and (len(batch) + 1) * sum(grown) > self.plan.tokens_per_batch:
                    index.add([(row,) for row in batch])
                    batch, grown = [], size
                batch.append(row)
                widest = grown
            index.add([(row,) for row in batch])
        return index

    def _packed(self) -> "BatchIndex":
        parts, budgets = self.sizes.shape[1], self.plan.budgets
        room = budgets if parts == len(budgets) else (sum(budgets),)
        if self.plan.pack_tokens is not None:
            room = (self.plan.pack_tokens,) * parts
        sequences = BatchIndex()
        for window in self._windows():
            sequences.add(first_fit_decreasing(window.tolist(), self.sizes, room))
        order = torch.randperm(sequences.total, generator=torch.Generator().manual_seed(self.plan.seed)).tolist()
        index = BatchIndex()
        for numbers in _cut(order, self.plan.batch_size):
            index.add([sequences.sequence(number) for number in numbers])
        return index

    def widest(self, batch: Sequence[Pack]) -> list[int]:
        """Tokens of the longest sequence of a batch, for each part."""
        lengths = [self.sizes[list(pack)].sum(axis=0).tolist() for pack in batch]
        return [max(part) for part in zip(*lengths, strict=True)]


class BatchIndex(Sequence[list[Pack]]):
    """Batches of sequences in three flat arrays: a million rows as tuples would take too much memory."""

    def __init__(self) -> None:
        self.rows, self.sequence_ends, self.batch_ends = array("i"), array("i"), array("i")

    def add(self, batch: Sequence[Pack]) -> None:
        """Append a batch."""
        for pack in batch:
            self.rows.extend(pack)
            self.sequence_ends.append(len(self.rows))
        self.batch_ends.append(len(self.sequence_ends))

    @property
    def total(self) -> int:
        """Number of sequences in all batches."""
        return len(self.sequence_ends)

    def sequence(self, number: int) -> Pack:
        """A sequence by its number over all batches."""
        return tuple(self.rows[self.sequence_ends[number - 1] if number else 0 : self.sequence_ends[number]])

    def __len__(self) -> int:
        return len(self.batch_ends)

    def __getitem__(self, number: Any) -> Any:
        """The sequences of a batch."""
        number = range(len(self))[number]
        start = self.batch_ends[number - 1] if number else 0
        return [self.sequence(position) for position in range(start, self.batch_ends[number])]


def length_batches(
    lengths: Sequence[int], *, max_rows: int | None = None, max_tokens: int | None = None, extra: int = 0
) -> list[list[int]]:
    """Batches of indices in order of length, for inference.

    Args:
        lengths: Tokens of each row.
        max_rows: Rows per batch.
        max_tokens: Rows x (longest row + ``extra``) per batch; a row over the budget is a batch of its own.
        extra: Tokens that each row grows by, such as those of its answer.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: lengths[i]):  # the last row of a batch is its longest
        size = len(batches[-1]) + 1 if batches else 0
        full = max_rows is not None and size > max_rows
        full |= max_tokens is not None and size * (lengths[row] + extra) > max_tokens
        if not batches or full:
            batches.append([])
        batches[-1].append(row)
    return batches


def sort_by_length(rows: np.ndarray, sizes: np.ndarray, batch: int) -> np.ndarray:
    """Sort rows so that those of a batch have similar lengths in every part.

    Longest first. With two parts (seq2seq), rows are sorted by the source, cut into about sqrt(batches) strips, and each strip
    is sorted by the target. (A sort by the sum would put a long source next to a long target.)

    Args:
        rows: Row numbers.
        sizes: Tokens of all rows, [rows, parts].
        batch: Approximate number of rows in a batch.
    """
    order = rows[np.argsort(-sizes[rows, 0], kind="stable")]
    if sizes.shape[1] == 1:
        return order
    batches = -(-len(rows) // batch)
    strip = batch * -(-batches // max(1, round(batches**0.5)))
    return np.concatenate([part[np.argsort(-sizes[part, 1], kind="stable")] for part in _cut(order, strip)])


def first_fit_decreasing(rows: Sequence[int], sizes: np.ndarray | Sequence[Size], room: Size) -> list[Pack]:
    """Pack rows into sequences: the longest first, each into the first sequence that has room for it in every part.

    A row longer than ``room`` is a sequence by itself. Needs at most 11/9 of the optimal number of sequences plus 1 (one
    part; D. Johnson, 1973).
    """
    needs = np.asarray(sizes)[list(rows)]
    smallest = needs.min(axis=0).tolist()
    packs: list[list[int]] = []
    still_open: list[tuple[list[int], list[int]]] = []  # sequences with room for the smallest row, and that room
    for position in np.argsort(-needs.sum(axis=1), kind="stable").tolist():
        need = needs[position].tolist()
        pack, free = next(
            (entry for entry in still_open if all(n <= f for n, f in zip(need, entry[1], strict=True))),
            ([], list(room)),
        )
        if not pack:
            packs.append(pack)
            still_open.append((pack, free))
        pack.append(rows[position])
        free[:] = [f - n for f, n in zip(free, need, strict=True)]
        if any(f < n for f, n in zip(free, smallest, strict=True)):
            still_open.remove((pack, free))
    return [tuple(pack) for pack in packs]


def _cut(items: Any, size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]
