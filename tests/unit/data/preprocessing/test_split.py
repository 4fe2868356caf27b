"""How many rows go where, and which."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.data.preprocessing.split import HashSplit, split_rows, spread
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
    with pytest.raises(UserError, match="1 rows leave none to train on"):
        split_rows(1, {"train": None, "val": 0.1, "test": 0}, "shuffle", 1)


@given(rows=st.integers(3, 200), val=st.floats(0, 0.4), test=st.floats(0, 0.4), seed=st.integers(0, 9))
def test_every_row_once_and_the_same_for_the_same_seed(rows, val, test, seed):
    split = {"train": None, "val": val, "test": test}
    dealt = listed(rows, split, "shuffle", seed)
    assert sorted(row for part in dealt.values() for row in part) == list(range(rows))
    assert listed(rows, split, "shuffle", seed) == dealt
    assert all(bool(dealt[name]) == bool(split[name]) for name in ("val", "test"))


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
