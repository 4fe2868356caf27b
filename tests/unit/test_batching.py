"""Order of batches: every row once, by seed and epoch alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.batching import Batches


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=80),
    size=st.integers(1, 9),
    shuffle=st.booleans(),
    grouped=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_every_row_is_there_once(lengths, size, shuffle, grouped, epoch):
    batches = Batches(lengths, size, shuffle=shuffle, grouped=grouped, seed=1)
    batches.set_epoch(epoch)
    found = list(batches)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert len(found) == len(batches)
    assert found == list(batches)


def test_epochs_and_seeds_differ_and_repeat():
    def order(seed, epoch):
        batches = Batches(range(40), 4, shuffle=True, grouped=False, seed=seed)
        batches.set_epoch(epoch)
        return list(batches)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    assert order(1, 1) != order(2, 0)


def test_without_shuffling_rows_keep_their_order():
    assert list(Batches([5, 1, 4], 2, shuffle=False, grouped=False, seed=0)) == [[0, 1], [2]]


def test_grouping_puts_like_lengths_together():
    lengths = [1, 90, 2, 91, 3, 92, 4, 93]
    found = list(Batches(lengths, 4, shuffle=True, grouped=True, seed=3))
    assert sorted(sorted(batch) for batch in found) == [[0, 2, 4, 6], [1, 3, 5, 7]]


@pytest.mark.parametrize("grouped", [True, False])
def test_lightning_finds_set_epoch(grouped):
    from lightning.fabric.utilities.data import _set_sampler_epoch
    from torch.utils.data import DataLoader

    batches = Batches(range(4), 2, shuffle=True, grouped=grouped, seed=0)
    _set_sampler_epoch(DataLoader(range(4), batch_sampler=batches), 5)  # pyright: ignore[reportArgumentType]
    assert batches.epoch == 5
