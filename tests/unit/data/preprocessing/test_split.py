"""How many rows go where, and which."""

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.data.preprocessing.split import HashSplit, SplitConfig, split_by_identity, split_rows, spread
from llmft.data.records import Example, Turn
from llmft.utils.errors import UserError


def listed(*given, **named):
    return {name: part.tolist() for name, part in split_rows(*given, **named).items()}


def test_the_alpaca_experiments_split_by_position():
    dealt = listed(1100, {"train": None, "val": 0.05, "test": 0.1}, "position", seed=1)
    assert dealt == {"train": [*range(935)], "test": [*range(935, 1045)], "val": [*range(1045, 1100)]}


def test_a_share_is_at_least_one_row_and_none_is_none():
    assert {k: len(v) for k, v in listed(5, {"train": None, "val": 0.1, "test": 0}, "shuffle", 1).items()} == {
        "train": 4,
        "test": 0,
        "val": 1,
    }


def test_a_train_share_leaves_rows_unused():
    assert listed(10, {"train": 0.5, "val": 0.1, "test": 0.1}, "position", 1) == {
        "train": [0, 1, 2, 3, 4],
        "test": [5],
        "val": [6],
    }


def test_nothing_to_train_on():
    with pytest.raises(UserError, match=r"1 row leaves none to train on; data\.split\.val=0"):
        split_rows(1, {"train": None, "val": 0.1, "test": 0}, "shuffle", 1)


def test_a_dropped_example_moves_no_other_one_by_position():
    by_position = SplitConfig({"train": None, "val": 0.2, "test": 0.2}, "position", "warn", seed=1)
    left = np.array([0, 2, 3, 5, 7, 8, 9])  # of 10: 6 of train, 2 of test, 2 of val
    assert {k: v.tolist() for k, v in by_position.assign(left, 10).items()} == {
        "train": [0, 1, 2, 3],
        "test": [4],
        "val": [5, 6],
    }
    with pytest.raises(UserError, match="all 6 examples of train were dropped"):
        by_position.assign(np.array([7, 8]), 10)


@given(rows=st.integers(3, 200), val=st.floats(0, 0.4), test=st.floats(0, 0.4), seed=st.integers(0, 9))
def test_every_row_once_and_the_same_for_the_same_seed(rows, val, test, seed):
    split = {"train": None, "val": val, "test": test}
    dealt = listed(rows, split, "shuffle", seed)
    assert sorted(row for part in dealt.values() for row in part) == list(range(rows))
    assert listed(rows, split, "shuffle", seed) == dealt
    assert all(bool(dealt[name]) == bool(split[name]) for name in ("val", "test"))


FREE = np.full(10, -1, np.int8)
TENTHS = {"train": None, "val": 0.2, "test": 0.2}


def by_identity(owners, groups, fixed: Any = FREE, split: Any = TENTHS, seed=1):
    parts, unused = split_by_identity(
        np.array(owners), np.array(groups, np.int64), np.array(fixed, np.int8), split, seed
    )
    return {name: part.tolist() for name, part in parts.items()}, unused


def test_a_group_is_never_divided_and_shares_are_kept_where_groups_allow():
    groups = [7, 7, 7, 7, 7, 7, 1, 2, 3, 4]  # six examples have one prompt, which is more than a fifth
    parts, unused = by_identity(range(10), groups)
    assert {name: len(part) for name, part in parts.items()} == {"train": 6, "test": 2, "val": 2}
    assert parts["train"] == [0, 1, 2, 3, 4, 5]
    assert unused == 0


def test_what_a_tokenizer_drops_moves_no_other_example():
    """The rows of ten examples; another model drops examples 2 and 5, and splits example 8 into two rows."""
    all_of_them = {row: name for name, rows in by_identity(range(10), range(10))[0].items() for row in rows}
    owners = [0, 1, 3, 4, 6, 7, 8, 8, 9]
    for name, rows in by_identity(owners, range(10))[0].items():
        assert {all_of_them[owners[row]] for row in rows} <= {name}


def test_a_named_split_is_kept_and_the_others_follow_the_seed():
    fixed = [2, 1, *[-1] * 8]
    parts, _ = by_identity(range(10), range(10), fixed, {"train": None, "val": 0, "test": 0.25})
    assert parts["val"] == [0]
    assert 1 in parts["test"]
    assert len(parts["test"]) == 3
    others = [
        by_identity(range(10), range(10), fixed, {"train": None, "val": 0, "test": 0.25}, seed)[0] for seed in range(9)
    ]
    assert len({tuple(other["test"]) for other in others}) > 1


def test_a_train_share_leaves_examples_unused_and_one_group_cannot_be_split():
    parts, unused = by_identity(range(10), range(10), split={"train": 0.5, "val": 0.1, "test": 0})
    assert [len(parts[name]) for name in ("train", "test", "val")] == [5, 0, 1]
    assert unused == 4
    with pytest.raises(UserError, match=r"no example is left to train on \(train 0, test 0, val 10; 1 different"):
        by_identity(range(10), [5] * 10, split={"train": None, "val": 0.1, "test": 0})


@given(
    groups=st.lists(st.integers(0, 12), min_size=6, max_size=40),
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0.05, 0.4),
)
def test_equal_groups_are_together_whatever_the_order(groups, seed, share):
    if len(set(groups)) < 3:
        return
    split = {"train": None, "val": share, "test": share}
    fixed = [-1] * len(groups)
    try:
        parts, unused = by_identity(range(len(groups)), groups, fixed, split, seed)
    except UserError:  # a few large groups: val and test have all of them
        assert max(map(groups.count, groups)) > share * len(groups)
        return
    split_of = {}
    for name, rows in parts.items():
        for row in rows:
            assert split_of.setdefault(groups[row], name) == name
    assert sum(map(len, parts.values())) == len(groups)
    assert unused == 0
    backwards, _ = by_identity(range(len(groups)), groups[::-1], fixed, split, seed)
    assert {name: sorted(groups[::-1][row] for row in rows) for name, rows in backwards.items()} == {
        name: sorted(groups[row] for row in rows) for name, rows in parts.items()
    }


def test_the_rows_of_groups():
    assert spread(np.array([4, 0, 9]), np.array([2, 3, 1])).tolist() == [4, 5, 0, 1, 2, 9]
    assert spread(np.array([], int), np.array([], int)).tolist() == []


def test_the_split_of_a_plain_turn_is_that_of_earlier_versions():
    """A stream that is resumed must keep its splits: blake2b of the text that ``repr`` gave of a turn with three fields."""
    text = "(3, (Turn(role='user', content='Q', input=''),))"
    share = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64
    example = Example((Turn("user", "Q"),), "A")
    for below, name in ((1e-6, "train"), (-1e-6, "val")):
        assert HashSplit({"train": None, "val": share - below, "test": 0}, 3, 9).split_of(example) == name
