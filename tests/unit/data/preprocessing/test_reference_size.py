"""What a loss was measured on: rows, tokens, bytes."""

import numpy as np
import pytest

from llmft.data.preprocessing.arrow_store import EXAMPLES, ArrowTable, example_batch, writing
from llmft.data.preprocessing.reference_size import reference_size
from llmft.data.records import Example, Turn

ANSWERS = ("yes", "no", "déjà vu", "never")  # 3, 2, 9 and 5 bytes


@pytest.fixture
def table(tmp_path):
    def make(*more):
        examples = [Example((Turn("user", "q"),), answer) for answer in ANSWERS] + list(more)
        with writing(tmp_path / "examples.arrow", EXAMPLES) as write:
            for start in range(0, len(examples), 2):
                write(example_batch(examples[start : start + 2]))
        return ArrowTable(tmp_path / "examples.arrow")

    return make


def columns(rows):
    return {
        "row": np.arange(rows, dtype=np.int64)[::-1].copy(),
        "answer_tokens": np.full(rows, 4, np.int32),
        "example": np.arange(rows, dtype=np.int32),
    }


def size(table, rows, **changes):
    options = {"answers_only": True, "max_answer": 8} | changes
    return reference_size(table, columns(len(table)), np.array(rows), **options)  # pyright: ignore[reportArgumentType]


def test_tokens_and_bytes_of_a_split(table):
    found = size(table(), [3, 0, 2])
    assert (found["rows"], found["tokens"], found["bytes"]) == (3, 12, 17)
    assert found["identity"] == size(table(), [0, 2, 3])["identity"] != size(table(), [0, 1, 3])["identity"]


@pytest.mark.parametrize("changes", [{"answers_only": False}, {"max_answer": 3}])
def test_they_are_not_known_where_answers_are_not_all_that_is_supervised(changes, table):
    assert (size(table(), [0, 1], **changes)["tokens"], size(table(), [0, 1], **changes)["bytes"]) == (None, None)


def test_nor_of_answers_with_calls(table):
    called = table(Example((Turn("user", "q"),), "", tool_calls=('{"name": "f"}',)))
    assert size(called, [0, 4])["bytes"] is None
    assert size(called, [0, 3])["bytes"] == 8
