"""Which rows make a batch, in which order: shuffled or length-grouped, the same for any number of workers."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

# Rows are sorted by length inside blocks of this many batches, so that a batch pads little and order stays random.
GROUP_BATCHES = 16


class Batches(Sampler[list[int]]):
    """A batch sampler whose order depends on seed and epoch alone.

    Args:
        lengths: Length of each row in tokens, [rows].
        batch_size: Rows in a batch; the last batch may be smaller.
        shuffle: A new permutation each epoch; else the order of the rows.
        grouped: Whether rows of like length share a batch.
        seed: Seed of the permutations.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, *, shuffle: bool, grouped: bool, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.grouped = grouped
        self.seed = seed
        self.epoch = 0

    @property
    def sampler(self) -> "Batches":
        """Lightning calls ``set_epoch`` on the sampler behind a batch sampler: here both are one."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = list(range(len(self.lengths)))
        if self.shuffle:
            order = torch.randperm(len(order), generator=generator).tolist()
        if self.grouped:
            block = self.batch_size * GROUP_BATCHES
            order = [
                row for start in range(0, len(order), block) for row in self._by_length(order[start : start + block])
            ]
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        if self.grouped and self.shuffle:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        yield from batches

    def _by_length(self, rows: list[int]) -> list[int]:
        return sorted(rows, key=lambda row: self.lengths[row], reverse=True)
