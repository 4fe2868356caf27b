"""``data.train_fraction``: nested parts of train, chosen by identity."""

from itertools import pairwise

import numpy as np
import pytest

from llmft.data.preprocessing.train_fraction import nested_subset, repeated

# 40 examples: two rows each (turns of a conversation), groups of one, three and sixteen examples
OWNERS = np.repeat(np.arange(40), 2)
GROUPS = np.array([7] * 16 + [8, 8, 8] + list(range(100, 121)), np.int64)
ROWS = np.arange(4, 80)  # the first two examples are in test


def chosen(fraction, seed=1, groups=GROUPS):
    return set(OWNERS[nested_subset(ROWS, OWNERS, groups, fraction, seed)].tolist())


@pytest.mark.parametrize("seed", range(20))
def test_a_smaller_fraction_is_part_of_a_larger_one(seed):
    fractions = (0.05, 0.1, 0.25, 0.5, 0.75, 1)
    parts = [chosen(fraction, seed) for fraction in fractions]
    assert all(small <= large for small, large in pairwise(parts))
    assert all(1 <= len(part) <= max(14, round(fraction * 38)) for part, fraction in zip(parts, fractions, strict=True))
    assert parts[-1] == set(range(2, 40))


def test_groups_and_conversations_are_not_divided():
    rows = nested_subset(ROWS, OWNERS, GROUPS, 0.5, 3)
    assert np.unique(OWNERS[rows], return_counts=True)[1].tolist() == [2] * len(np.unique(OWNERS[rows]))
    for group in (7, 8):
        members = set(np.flatnonzero(np.equal(GROUPS, group)).tolist()) - {0, 1}
        assert len(members & chosen(0.5, 3)) in (0, len(members))


def test_another_seed_is_another_part_and_examples_without_a_group_are_by_number():
    none = np.zeros(40, np.int64)
    assert chosen(0.25, 1, none) != chosen(0.25, 2, none)
    assert len(chosen(0.25, 1, none)) == 10  # round(0.25 * 38)


def test_a_part_is_repeated_to_the_length_of_an_epoch():
    assert repeated(np.array([3, 5, 8]), 7).tolist() == [3, 5, 8, 3, 5, 8, 3]
    assert repeated(np.array([3, 5, 8]), 3).tolist() == [3, 5, 8]
