"""Order of batches: every row once, by seed and epoch alone; packed and shared out by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.data.batching.sampler import BatchingConfig, PlannedBatchSampler, first_fit_decreasing

KINDS = ("rows", "grouped", "tokens", "packed")


def plan(batching, batch_size=4, *, shuffle=True, seed=1, tokens=64, pack=None):
    return BatchingConfig(batching, batch_size, tokens, pack, (30, 20), shuffle, seed)


def rows_of(batches):
    return [row for batch in batches for line in batch for row in line]


sizes = st.lists(st.tuples(st.integers(1, 50)), min_size=1, max_size=80) | st.lists(
    st.tuples(st.integers(1, 50), st.integers(1, 20)), min_size=1, max_size=40
)


@given(sizes=sizes, kind=st.sampled_from(KINDS), size=st.integers(1, 9), shuffle=st.booleans(), epoch=st.integers(0, 3))
def test_every_row_is_there_once(sizes, kind, size, shuffle, epoch):
    batches = PlannedBatchSampler(sizes, plan(kind, size, shuffle=shuffle))
    batches.set_epoch(epoch)
    found = list(batches)
    assert sorted(rows_of(found)) == list(range(len(sizes)))
    assert len(found) == len(batches)
    assert found == list(batches)


@given(sizes=sizes, kind=st.sampled_from(KINDS), ranks=st.integers(1, 4), data=st.data())
def test_processes_share_the_batches_of_one(sizes, kind, ranks, data):
    epoch = data.draw(st.integers(0, 2))
    alone = PlannedBatchSampler(sizes, plan(kind))
    alone.set_epoch(epoch)
    shares = []
    for rank in range(ranks):
        part = PlannedBatchSampler(sizes, plan(kind), rank=rank, ranks=ranks)
        part.set_epoch(epoch)
        shares.append(list(part))
        assert len(shares[-1]) == len(part)
    assert len({len(share) for share in shares}) == 1
    in_turn = [batch for round_ in zip(*shares, strict=True) for batch in round_]
    fillers = [batch for batch in in_turn if batch[0][0] < 0]
    assert in_turn == list(alone) + fillers
    assert len(fillers) < ranks
    assert all(len(batch) == 1 and len(batch[0]) == 1 for batch in fillers)


@given(sizes=sizes, kind=st.sampled_from(KINDS), epoch=st.integers(0, 2), data=st.data())
def test_a_resumed_epoch_is_the_rest_of_it(sizes, kind, epoch, data):
    whole = PlannedBatchSampler(sizes, plan(kind))
    whole.set_epoch(epoch)
    seen = data.draw(st.integers(0, len(whole)))
    rest = PlannedBatchSampler(sizes, plan(kind))
    rest.resume_at(epoch, seen)
    rest.set_epoch(epoch)  # Lightning sets it again
    assert list(rest) == list(whole)[seen:]
    assert len(rest) == len(whole)
    rest.set_epoch(epoch + 1)
    whole.set_epoch(epoch + 1)
    assert list(rest) == list(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_and_seeds_differ_and_repeat(kind):
    def order(seed, epoch):
        batches = PlannedBatchSampler([(1 + n % 7,) for n in range(80)], plan(kind, seed=seed, tokens=20))
        batches.set_epoch(epoch)
        return list(batches)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    assert order(1, 1) != order(2, 0)


def test_without_shuffling_rows_keep_their_order():
    assert list(PlannedBatchSampler([(5,), (1,), (4,)], plan("rows", 2, shuffle=False))) == [[(0,), (1,)], [(2,)]]


def test_grouping_puts_like_lengths_together():
    sizes = [(n,) for n in (1, 90, 2, 91, 3, 92, 4, 93)]
    found = list(PlannedBatchSampler(sizes, plan("grouped", 4, seed=3)))
    assert sorted(sorted(rows_of([batch])) for batch in found) == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_grouping_looks_at_both_sides():
    """By the sum of both, every batch would hold long questions with short answers and the other way round."""
    sizes = [(source, target) for source in (1, 40) for target in (1, 40)] * 4
    batches = PlannedBatchSampler(sizes, plan("grouped", 4))
    assert all(len({sizes[row] for row in rows_of([batch])}) == 1 for batch in batches)
    assert batches.fill() == 1


def test_a_token_budget_counts_padding_and_both_sides():
    sizes = [(10, 2), (9, 1), (4, 4), (3, 1), (40, 5)]
    found = list(PlannedBatchSampler(sizes, plan("tokens", shuffle=False, tokens=24)))
    # 40 + 5 is over the budget and alone; 2 x (10 + 2) is 24; 2 x (4 + 4) is 16
    assert found == [[(4,)], [(0,), (1,)], [(2,), (3,)]]


@given(sizes=sizes, budget=st.integers(1, 200))
def test_no_batch_is_over_the_token_budget_but_a_row_alone(sizes, budget):
    for batch in PlannedBatchSampler(sizes, plan("tokens", tokens=budget)):
        widest = [max(sizes[line[0]][part] for line in batch) for part in range(len(sizes[0]))]
        assert len(batch) == 1 or len(batch) * sum(widest) <= budget


def test_first_fit_decreasing_by_hand():
    sizes = [(4,), (2,), (4,), (1,)]
    assert first_fit_decreasing([0, 1, 2, 3], sizes, (4,)) == [(0,), (2,), (1, 3)]
    assert first_fit_decreasing([0, 1, 2, 3], sizes, (8,)) == [(0, 2), (1, 3)]
    # the source would fit, the target does not
    assert first_fit_decreasing([0, 1], [(2, 5), (2, 4)], (10, 8)) == [(0,), (1,)]
    assert first_fit_decreasing([0, 1], [(9, 1), (2, 1)], (5, 5)) == [(0,), (1,)]


@given(sizes=sizes, room=st.integers(1, 100))
def test_no_line_is_too_long_but_a_row_alone(sizes, room):
    for line in first_fit_decreasing(range(len(sizes)), sizes, (room,) * len(sizes[0])):
        used = [sum(sizes[row][part] for row in line) for part in range(len(sizes[0]))]
        assert len(line) == 1 or max(used) <= room


def test_fill_is_the_share_of_tokens_that_are_not_padding():
    sizes = [(4,), (2,), (3,), (1,)]
    assert PlannedBatchSampler(sizes, plan("rows", 2, shuffle=False)).fill() == pytest.approx(10 / (8 + 6))
    assert (
        PlannedBatchSampler(sizes, plan("packed", 1, pack=4)).fill() == 1
    )  # 4 | 3 + 1 | 2, each in a batch of its own
    assert PlannedBatchSampler(sizes, plan("packed", 4, pack=4)).fill() == pytest.approx(10 / 12)


def test_a_line_has_the_budgets_of_a_row_unless_told():
    assert len(PlannedBatchSampler([(25,)] * 4, plan("packed", 1))) == 2  # 30 + 20 hold two
    assert len(PlannedBatchSampler([(15, 10)] * 4, plan("packed", 1))) == 2  # 30 and 20 hold two each
    assert len(PlannedBatchSampler([(15, 11)] * 4, plan("packed", 1))) == 4
    assert len(PlannedBatchSampler([(25,)] * 4, plan("packed", 1, pack=100))) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_lightning_finds_set_epoch(kind):
    from lightning.fabric.utilities.data import _set_sampler_epoch
    from torch.utils.data import DataLoader

    batches = PlannedBatchSampler([(1,)] * 4, plan(kind, 2))
    _set_sampler_epoch(DataLoader(range(4), batch_sampler=batches), 5)  # pyright: ignore[reportArgumentType]
    assert batches.epoch == 5
