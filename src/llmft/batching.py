"""Which rows make a batch, in which order: the same for any number of workers, shared out over processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

# A line of a batch: the rows that share it (one, unless they are packed).
Line = tuple[int, ...]
# Tokens of a row as the encoder and the decoder see them; a causal row has one number.
Size = tuple[int, ...]

# Rows are sorted by length inside blocks of this many batches, so that a batch pads little and order stays random.
GROUP_BATCHES = 16
# Packed and token-budget batches are chosen among so many shuffled rows.
WINDOW_ROWS = 2048


@dataclass(frozen=True)
class Plan:
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


class Batches(Sampler[list[Line]]):
    """A batch sampler whose order depends on seed and epoch alone.

    ``rows`` and ``grouped`` mix the rows anew each epoch. ``tokens`` and ``packed`` choose once which rows go together, and
    mix the batches each epoch, so that every epoch has the same number of steps.

    Args:
        sizes: Of each row, [rows].
        plan: How they become batches.
        rank: Which process this is; of consecutive batches each process takes one.
        ranks: How many there are. Where they do not share out evenly, the last ones get a filler: a line ``(~row,)`` that
            the loader turns into a row without labels, so that all processes take the same number of steps.
    """

    def __init__(self, sizes: Sequence[Size], plan: Plan, *, rank: int = 0, ranks: int = 1) -> None:
        self.sizes, self.plan, self.rank, self.ranks = sizes, plan, rank, ranks
        self.epoch = self.start = 0
        self.fixed = {"tokens": self._by_budget, "packed": self._packed}[plan.batching]() if self._is_fixed else []

    @property
    def sampler(self) -> "Batches":
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
        batches = len(self.fixed) if self._is_fixed else -(-len(self.sizes) // self.plan.batch_size)
        return -(-batches // self.ranks)

    def __iter__(self) -> Iterator[list[Line]]:
        batches = self._epoch()
        batches += [[(~batches[0][0][0],)]] * (-len(batches) % self.ranks)
        yield from batches[self.rank :: self.ranks][self.start :]

    def fill(self) -> float:
        """The share of the tensors' tokens that are rows and not padding, over an epoch."""
        used = sum(sum(size) for size in self.sizes)
        held = sum(len(batch) * sum(self._widest(batch)) for batch in self._epoch())
        return used / held

    @property
    def _is_fixed(self) -> bool:
        return self.plan.batching in ("tokens", "packed")

    def _epoch(self) -> list[list[Line]]:
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.epoch)
        if self._is_fixed:
            return self._mixed(self.fixed, generator)
        order = self._order(generator)
        grouped = self.plan.batching == "grouped"
        if grouped:
            block = self.plan.batch_size * GROUP_BATCHES
            order = [row for part in _cut(order, block) for row in sorted(part, key=self._length, reverse=True)]
        batches = _cut([(row,) for row in order], self.plan.batch_size)
        return self._mixed(batches, generator) if grouped else batches

    def _order(self, generator: torch.Generator) -> list[int]:
        rows = len(self.sizes)
        return torch.randperm(rows, generator=generator).tolist() if self.plan.shuffle else list(range(rows))

    def _mixed(self, batches: list[list[Line]], generator: torch.Generator) -> list[list[Line]]:
        if not self.plan.shuffle:
            return list(batches)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def _windows(self) -> list[list[int]]:
        return _cut(self._order(torch.Generator().manual_seed(self.plan.seed)), WINDOW_ROWS)

    def _by_budget(self) -> list[list[Line]]:
        batches: list[list[Line]] = []
        for window in self._windows():
            batch: list[Line] = []
            for row in sorted(window, key=self._length, reverse=True):
                grown = [*batch, (row,)]
                if batch and len(grown) * sum(self._widest(grown)) > self.plan.tokens_per_batch:
                    batches.append(batch)
                    grown = [(row,)]
                batch = grown
            batches.append(batch)
        return batches

    def _packed(self) -> list[list[Line]]:
        parts, budgets = len(self.sizes[0]), self.plan.budgets
        room = budgets if parts == len(budgets) else (sum(budgets),)
        if self.plan.pack_tokens is not None:
            room = (self.plan.pack_tokens,) * parts
        lines = [line for window in self._windows() for line in first_fit_decreasing(window, self.sizes, room)]
        generator = torch.Generator().manual_seed(self.plan.seed)
        lines = [lines[i] for i in torch.randperm(len(lines), generator=generator).tolist()]
        return _cut(lines, self.plan.batch_size)

    def _length(self, row: int) -> int:
        return sum(self.sizes[row])

    def _widest(self, batch: Sequence[Line]) -> list[int]:
        lines = [[sum(part) for part in zip(*(self.sizes[row] for row in line), strict=True)] for line in batch]
        return [max(part) for part in zip(*lines, strict=True)]


def first_fit_decreasing(rows: Sequence[int], sizes: Sequence[Size], room: Size) -> list[Line]:
    """Lay rows into lines: the longest first, each into the first line that still has room in every part.

    A row longer than ``room`` has a line for itself. At most 11/9 of the fewest possible lines, and 1 (D. Johnson, 1973,
    for one part).
    """
    smallest = [min(part) for part in zip(*(sizes[row] for row in rows), strict=True)]
    lines: list[list[int]] = []
    still_open: list[tuple[list[int], list[int]]] = []  # lines with room for the smallest row, and their room
    for row in sorted(rows, key=lambda row: sum(sizes[row]), reverse=True):
        need = sizes[row]
        line, free = next(
            (entry for entry in still_open if all(n <= f for n, f in zip(need, entry[1], strict=True))),
            ([], list(room)),
        )
        if not line:
            lines.append(line)
            still_open.append((line, free))
        line.append(row)
        free[:] = [f - n for f, n in zip(free, need, strict=True)]
        if any(f < n for f, n in zip(free, smallest, strict=True)):
            still_open.remove((line, free))
    return [tuple(line) for line in lines]


def _cut(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]
