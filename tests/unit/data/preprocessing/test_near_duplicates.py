"""Held-out prompts that are nearly one in train: what is dropped, recorded and said."""

import numpy as np
import pytest

from llmft.data.preprocessing.near_duplicates import NearDuplicate, lines, summary, without
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.utils.errors import UserError

NEAR = NearDuplicate("test", 4, "test.jsonl:1", "rows.jsonl:9", 0.75, 0.5)


def test_near_duplicates_are_dropped_from_their_split_and_counted():
    counts = RowCounts("", None, kept=5)
    indices = {"train": np.array([0, 1]), "test": np.array([2, 3, 4])}
    owners = np.array([0, 1, 3, 4, 4])  # a conversation of two rows
    left = without(indices, [NEAR], owners, counts)
    assert {name: rows.tolist() for name, rows in left.items()} == {"train": [0, 1], "test": [2]}
    assert (counts.kept, dict(counts.dropped)) == (4, {"in train and test, nearly": 1})
    assert counts.rejected[0]["reason"] == "is nearly that of rows.jsonl:9"
    with pytest.raises(UserError, match=r"near_duplicates=drop: every prompt of test is nearly one in train"):
        without({**indices, "test": np.array([3, 4])}, [NEAR], owners, counts)


def test_what_is_recorded():
    assert summary("report", [NEAR] * 300)["found"] == 300
    assert summary("report", [NEAR])["examples"] == [
        {"split": "test", "place": "test.jsonl:1", "train": "rows.jsonl:9", "prompt": 0.75, "reply": 0.5}
    ]
    assert summary("off", None) == {"policy": "off", "found": None}
    assert str(NEAR) == "test.jsonl:1: its prompt is nearly that of rows.jsonl:9 (prompt 0.75, reply 0.50)"
    assert lines("report", [NEAR] * 7) == [f"near-duplicate in test: {NEAR}"] * 5 + ["and 2 more near-duplicates"]
    assert lines("report", None) == ["near-duplicates: not searched in a stream"]
    assert lines("report", []) == lines("off", None) == []
