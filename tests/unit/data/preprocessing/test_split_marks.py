"""What decides the split of an example: its prompt, its row, or a field of it."""

import numpy as np
import pytest

from llmft.data.preprocessing.split_marks import FREE, SplitMark, mark_of, read_marks, write_marks
from llmft.data.records import Example, RowError, Turn


def example(question, answer="4"):
    return Example((Turn("user", question),), answer)


def test_prompts_that_differ_in_case_width_and_white_space_are_one_group():
    first, *others = (
        mark_of(example(text, str(n)), {}, "prompt") for n, text in enumerate(("2 + 2?", "2 +  2?", "２ + 2?"))
    )
    assert all(other == first for other in others)
    assert mark_of(example("2 + 3?"), {}, "prompt") != first
    assert first.split == FREE


def test_a_row_is_its_prompt_and_its_answer():
    assert mark_of(example("2 + 2?", "four"), {}, "row") != mark_of(example("2 + 2?"), {}, "row")
    assert mark_of(example("2 + 2?", "Four"), {}, "row") == mark_of(example("2 + 2?", "four"), {}, "row")


def test_a_field_keeps_its_values_together_or_names_the_split():
    assert mark_of(example("a"), {"user": 7}, "group:user") == mark_of(example("b"), {"user": "7"}, "group:user")
    assert [
        mark_of(example("a"), {"split": name}, "column:split").split for name in ("train", "test", " Validation ")
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
        mark_of(example("a"), row, split_by)
    assert str(caught.value).startswith(said)


def test_a_file_of_its_own_decides_for_all_its_rows():
    assert mark_of(example("a"), {}, "prompt", "val") == SplitMark(0, 2)


def test_marks_are_stored(tmp_path):
    write_marks(tmp_path, [SplitMark(-5), SplitMark(2**62, 1)])
    write_marks(tmp_path, [])
    write_marks(tmp_path, [SplitMark(1, 2)])
    groups, splits = read_marks(tmp_path)
    assert groups.tolist() == [-5, 2**62, 1]
    assert splits.tolist() == [-1, 1, 2]
    assert (groups.dtype, splits.dtype) == (np.int64, np.int8)
