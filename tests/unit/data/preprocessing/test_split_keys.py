"""What decides the split of an example: its prompt, its row, or a field of it."""

from dataclasses import replace

import numpy as np
import pytest

from llmft.data.preprocessing.split_keys import (
    FREE,
    SplitKey,
    own_file_key,
    read_split_keys,
    split_key_of,
    write_split_keys,
)
from llmft.data.records import Example, RowError, Turn


def example(question, answer="4"):
    return Example((Turn("user", question),), answer)


def test_prompts_that_differ_in_case_width_and_white_space_are_one_group():
    first, *others = (
        split_key_of(example(text, str(n)), {}, "prompt") for n, text in enumerate(("2 + 2?", "2 +  2?", "２ + 2?"))
    )
    assert all(other == first for other in others)
    assert split_key_of(example("2 + 3?"), {}, "prompt") != first
    assert first.split == FREE


def test_a_row_is_its_prompt_and_its_answer():
    assert split_key_of(example("2 + 2?", "four"), {}, "row") != split_key_of(example("2 + 2?"), {}, "row")
    assert split_key_of(example("2 + 2?", "Four"), {}, "row") == split_key_of(example("2 + 2?", "four"), {}, "row")


def test_a_field_keeps_its_values_together_or_names_the_split():
    assert split_key_of(example("a"), {"user": 7}, "group:user") == split_key_of(
        example("b"), {"user": "7"}, "group:user"
    )
    assert [
        split_key_of(example("a"), {"split": name}, "column:split").split for name in ("train", "test", " Validation ")
    ] == [0, 1, 2]


@pytest.mark.parametrize(
    ("row", "split_by", "said"),
    [
        ({}, "group:user", "user: must be a string or a number, as data.split_by=group:user groups by it"),
        ({"user": ["a"]}, "group:user", "user: must be a string or a number"),
        (
            {"split": "holdout"},
            "column:split",
            "split: must be train, val or test, as data.split_by=column:split reads it",
        ),
        ({}, "column:split", "split: must be train, val or test"),
    ],
)
def test_a_field_without_such_a_value_is_an_invalid_row(row, split_by, said):
    with pytest.raises(RowError) as caught:
        split_key_of(example("a"), row, split_by)
    assert str(caught.value).startswith(said)


def test_rows_with_other_calls_are_other_rows():
    """The text of both replies is empty."""
    calls = [replace(example("a", ""), tool_calls=(call,)) for call in ('{"name": "add"}', '{"name": "divide"}')]
    assert split_key_of(calls[0], {}, "row") != split_key_of(calls[1], {}, "row")
    assert split_key_of(calls[0], {}, "prompt") == split_key_of(calls[1], {}, "prompt")


def test_a_file_of_its_own_decides_for_all_its_rows():
    assert split_key_of(example("a"), {}, "prompt", 2) == SplitKey(0, 2)
    assert [own_file_key(split) for split in ("val", "test", "val/law")] == [
        *("data.val_path", "data.test_path", "data.extra_val.law"),
    ]


def test_rows_that_are_named_train_are_grouped_by_their_prompt():
    """Of these, a split that no row names is taken."""
    named = split_key_of(example("a"), {"split": "train"}, "column:split")
    assert named == split_key_of(example("a"), {}, "position", 0) == (split_key_of(example("a"), {}, "prompt").group, 0)


def test_split_keys_are_stored(tmp_path):
    write_split_keys(tmp_path, [SplitKey(-5), SplitKey(2**62, 1)])
    write_split_keys(tmp_path, [])
    write_split_keys(tmp_path, [SplitKey(1, 2)])
    groups, splits = read_split_keys(tmp_path)
    assert groups.tolist() == [-5, 2**62, 1]
    assert splits.tolist() == [-1, 1, 2]
    assert (groups.dtype, splits.dtype) == (np.int64, np.int8)
