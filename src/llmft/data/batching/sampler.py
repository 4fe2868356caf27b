"""Which rows make a batch, in which order: the same for any number of workers, shared out over processes."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

# A line of a batch: the rows that share it (one, unless they are packed).
Pack = tuple[int, ...]
# Tokens of a row as the encoder and the decoder see them; a causal row has one number.
Size = tuple[int, ...]

# Rows are sorted by length inside blocks of this many batches, so that a batch pads little and order stays random.
GROUP_BATCHES = 16
# Packed and token-budget batches are chosen among so many shuffled rows.
WINDOW_ROWS = 2048


@dataclass(frozen=True)
class BatchingConfig:
    """How rows become batches: the keys of ``conf/data`` that decide it.

    Attributes:
        batching: ``rows``, ``grouped`` (rows of like length), ``tokens`` (a budget) or ``packed``.
        batch_size: Lines in a batch (``tokens`` has a budget in their place); the last batch may be smaller.
        tokens_per_batch: ``tokens``: lines times the longest row, encoder and decoder added; a longer row is alone.
        pack_tokens: ``packed``: tokens of a line, for encoder and decoder each; None for the budgets.
        budgets: Tokens that a prompt and an answer may have.
        shuffle: A new order each epoch; else the order of the rows.
        seed: Of every order.
    """

    batching: str
    batch_size: int
    tokens_per_batch: int
    pack_tokens: int | None
    budgets: tuple[int, int]
    shuffle: bool
    seed: int


class PlannedBatchSampler(Sampler[list[Pack]]):
    """A batch sampler whose order depends on seed and epoch alone.

    ``rows`` and ``grouped`` mix the rows anew each epoch. ``tokens`` and ``packed`` choose once which rows go together, and
    mix the batches each epoch, so that every epoch has the same number of steps.

    Args:
        sizes: Tokens of each row, [rows, parts]: one part for a causal row, two for source and target.
        plan: How they become batches.
        rank: Which process this is; of consecutive batches each process takes one.
        ranks: How many there are. Where they do not share out evenly, the last ones get a filler: a line ``(~row,)`` that
            the loader turns into a row without labels, so that all processes take the same number of steps.
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
        """Lightning calls ``set_epoch`` on the sampler behind a batch sampler: here both are one."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch, from its first batch (but where ``resume_at`` has chosen it already)."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def resume_at(self, epoch: int, batches: int) -> None:
        """Leave out the first batches of an epoch: a resumed run has seen them."""
        self.epoch, self.start = epoch, batches

    def __len__(self) -> int:
        """Batches of an epoch for each process, those that were left out included."""
        return -(-self._whole // self.ranks)

    def __iter__(self) -> Iterator[list[Pack]]:
        order, count = self._epoch(), len(self)
        for number in range(self.start * self.ranks + self.rank, count * self.ranks, self.ranks):
            yield self._batch(order, number) if number < self._whole else [(~self._batch(order, 0)[0][0],)]

    def fill(self) -> float:
        """The share of the tensors' tokens that are rows and not padding, over an epoch."""
        held = 0
        if self._is_fixed:
            held = sum(len(batch) * sum(self.widest(batch)) for batch in self.fixed)
        else:
            rows, _ = self._epoch()  # which rows share a batch does not depend on the order of the batches
            for part in self.sizes.T:
                starts = np.arange(0, len(rows), self.plan.batch_size)
                counts = np.diff(np.append(starts, len(rows)))
                held += int((np.maximum.reduceat(part[rows], starts).astype(np.int64) * counts).sum())
        return int(self.lengths.sum(dtype=np.int64)) / held

    @property
    def _is_fixed(self) -> bool:
        return self.plan.batching in ("tokens", "packed")

    @property
    def _whole(self) -> int:
        """Batches of an epoch, all processes together."""
        return len(self.fixed) if self._is_fixed else -(-len(self.sizes) // self.plan.batch_size)

    def _epoch(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The order of this epoch: of rows, and of the batches that are cut from them (None: as they come)."""
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.epoch)
        if self._is_fixed:
            return np.arange(0), self._mixed(generator)
        rows = self._order(generator)
        if self.plan.batching == "rows":
            return rows, None
        block = self.plan.batch_size * GROUP_BATCHES
        parts = [sort_by_length(part, self.sizes, self.plan.batch_size) for part in _cut(rows, block)]
        return np.concatenate(parts), self._mixed(generator)

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

    def _mixed(self, generator: torch.Generator) -> np.ndarray | None:
        return torch.randperm(self._whole, generator=generator).numpy() if self.plan.shuffle else None

    def _windows(self) -> list[np.ndarray]:
        return _cut(self._order(torch.Generator().manual_seed(self.plan.seed)), WINDOW_ROWS)

    def _by_budget(self) -> "BatchIndex":
        laid = BatchIndex()
        for window in self._windows():
            many = int(self.plan.tokens_per_batch / max(1.0, self.lengths[window].mean()))
            window = sort_by_length(window, self.sizes, max(1, many))
            sizes = self.sizes[window].tolist()
            batch: list[int] = []
            widest = [0] * self.sizes.shape[1]
            for row, size in zip(window.tolist(), sizes, strict=True):
                grown = [max(pair) for pair in zip(widest, size, strict=True)]
                if batch and (len(batch) + 1) * sum(grown) > self.plan.tokens_per_batch:
                    laid.add([(row,) for row in batch])
                    batch, grown = [], size
                batch.append(row)
                widest = grown
            laid.add([(row,) for row in batch])
        return laid

    def _packed(self) -> "BatchIndex":
        parts, budgets = self.sizes.shape[1], self.plan.budgets
        room = budgets if parts == len(budgets) else (sum(budgets),)
        if self.plan.pack_tokens is not None:
            room = (self.plan.pack_tokens,) * parts
        lines = BatchIndex()
        for window in self._windows():
            lines.add(first_fit_decreasing(window.tolist(), self.sizes, room))
        mixed = torch.randperm(lines.lines, generator=torch.Generator().manual_seed(self.plan.seed)).tolist()
        laid = BatchIndex()
        for chosen in _cut(mixed, self.plan.batch_size):
            laid.add([lines.line(number) for number in chosen])
        return laid

    def widest(self, batch: Sequence[Pack]) -> list[int]:
        """Tokens of the longest line, part by part."""
        lines = [self.sizes[list(line)].sum(axis=0).tolist() for line in batch]
        return [max(part) for part in zip(*lines, strict=True)]


class BatchIndex(Sequence[list[Pack]]):
    """Batches of lines of rows in three arrays of numbers: a million rows as tuples would fill the memory."""

    def __init__(self) -> None:
        self.rows, self.line_ends, self.batch_ends = array("i"), array("i"), array("i")

    def add(self, batch: Sequence[Pack]) -> None:
        """Lay one batch behind the others."""
        for line in batch:
            self.rows.extend(line)
            self.line_ends.append(len(self.rows))
        self.batch_ends.append(len(self.line_ends))

    @property
    def lines(self) -> int:
        """Lines of all batches."""
        return len(self.line_ends)

    def line(self, number: int) -> Pack:
        """A line by its number, over all batches."""
        return tuple(self.rows[self.line_ends[number - 1] if number else 0 : self.line_ends[number]])

    def __len__(self) -> int:
        return len(self.batch_ends)

    def __getitem__(self, number: Any) -> Any:
        """The lines of a batch."""
        number = range(len(self))[number]
        start = self.batch_ends[number - 1] if number else 0
        return [self.line(line) for line in range(start, self.batch_ends[number])]


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
    """Rows in an order in which those of a batch are alike in every part.

    By length, longest first; where there are two parts, by the first, and within strips of as many batches as there are
    strips by the second: a long question may have a short answer, and a sum of both would lay it beside the opposite.

    Args:
        rows: Numbers of rows.
        sizes: Tokens of all rows, part by part.
        batch: Rows of a batch, about.
    """
    order = rows[np.argsort(-sizes[rows, 0], kind="stable")]
    if sizes.shape[1] == 1:
        return order
    batches = -(-len(rows) // batch)
    strip = batch * -(-batches // max(1, round(batches**0.5)))
    return np.concatenate([part[np.argsort(-sizes[part, 1], kind="stable")] for part in _cut(order, strip)])


def first_fit_decreasing(rows: Sequence[int], sizes: np.ndarray | Sequence[Size], room: Size) -> list[Pack]:
    """Lay rows into lines: the longest first, each into the first line that still has room in every part.

    A row longer than ``room`` has a line for itself. At most 11/9 of the fewest possible lines, and 1 (D. Johnson, 1973,
    for one part).
    """
    needs = np.asarray(sizes)[list(rows)]
    smallest = needs.min(axis=0).tolist()
    lines: list[list[int]] = []
    still_open: list[tuple[list[int], list[int]]] = []  # lines with room for the smallest row, and their room
    for place in np.argsort(-needs.sum(axis=1), kind="stable").tolist():
        need = needs[place].tolist()
        line, free = next(
            (entry for entry in still_open if all(n <= f for n, f in zip(need, entry[1], strict=True))),
            ([], list(room)),
        )
        if not line:
            lines.append(line)
            still_open.append((line, free))
        line.append(rows[place])
        free[:] = [f - n for f, n in zip(free, need, strict=True)]
        if any(f < n for f, n in zip(free, smallest, strict=True)):
            still_open.remove((line, free))
    return [tuple(line) for line in lines]


def _cut(items: Any, size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]
