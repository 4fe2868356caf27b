"""Held-out prompts that are nearly one in train."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.data.preprocessing.near_duplicates import (
    NearDuplicate,
    similar,
    summary,
    template_grams,
    without_near_duplicates,
)
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.preprocessing.word_grams import WordGrams, jaccard
from llmft.utils.errors import UserError

WORDS = [f"w{n}" for n in range(40)]
ORDERED = " ".join(WORDS)  # 36 grams
NONE = WordGrams.of([])


def found(held, *train):
    return similar(WordGrams.of(held), [WordGrams.of(part) for part in train], NONE)


def test_one_other_word_in_forty_is_nearly_equal():
    changed = ORDERED.replace("w20", "other")  # 5 of 36 grams: 31 / 41
    assert found(["new " + ORDERED[:9], changed], ["not", "it"], ["no", ORDERED, ORDERED]) == [(1, 3, 31 / 41)]
    assert found([changed.replace("w10", "more")], [ORDERED]) == []  # 26 / 46
    assert found([ORDERED], [" ".join(WORDS[:30])]) == [(0, 0, 26 / 36)]
    assert found([ORDERED], [" ".join(WORDS[:28])]) == []  # 24 / 36


def test_a_template_that_many_share_is_not_compared():
    template = " ".join(f"t{n}" for n in range(60))
    prompts = [f"{template} {name} one two three four five six" for name in ("Paris", "Rome", "Oslo", "Bern", "Riga")]
    grams = WordGrams.of(prompts)
    assert len(template_grams(grams)) == 56 + 2  # of t0 to t59, and of the six words behind the name
    assert found(prompts[:1], prompts[1:])
    assert similar(WordGrams.of(prompts[:1]), [WordGrams.of(prompts[1:])], grams) == []
    assert similar(WordGrams.of(prompts[:1]), [WordGrams.of(prompts)], grams) == [(0, 0, 1.0)]


def test_short_prompts_are_compared_as_a_whole():
    assert found(["what is love"], ["What is love?", "what is"]) == [(0, 0, 1.0)]
    assert found(["what is love", "?!"], ["what is hate", "!"]) == []


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), letters=st.integers(2, 6))
def test_no_pair_is_missed(seed, letters):
    """All pairs, one by one; texts of few different words have many grams in common."""
    draw = random.Random(seed)

    def text():
        return " ".join(draw.choices("abcdef"[:letters], k=draw.randint(1, 14)))

    held, train = [text() for _ in range(12)], [text() for _ in range(40)]
    one, other = WordGrams.of(held), WordGrams.of(train)
    scores = [[jaccard(one.text(i), other.text(j)) for j in range(40)] for i in range(12)]
    expected = [(i, next((j for j, s in enumerate(row) if s >= 0.7), None)) for i, row in enumerate(scores)]
    parts = [WordGrams.of(train[:17]), WordGrams.of(train[17:])]
    assert [pair[:2] for pair in similar(one, parts, NONE)] == [pair for pair in expected if pair[1] is not None]


NEAR = NearDuplicate("test", 4, "test.jsonl:1", "rows.jsonl:9", 0.75, 0.5)


def test_near_duplicates_are_dropped_from_their_split_and_counted():
    counts = RowCounts("", None, kept=5)
    indices = {"train": np.array([0, 1]), "test": np.array([2, 3, 4])}
    owners = np.array([0, 1, 3, 4, 4])  # a conversation of two rows
    left = without_near_duplicates(indices, [NEAR], owners, counts)
    assert {name: rows.tolist() for name, rows in left.items()} == {"train": [0, 1], "test": [2]}
    assert (counts.kept, dict(counts.dropped)) == (4, {"in train and test, nearly": 1})
    assert counts.rejected[0]["reason"] == "is nearly that of rows.jsonl:9"
    with pytest.raises(UserError, match=r"near_duplicates=drop: every prompt of test is nearly one in train"):
        without_near_duplicates({**indices, "test": np.array([3, 4])}, [NEAR], owners, counts)


def test_what_is_recorded():
    assert summary("report", [NEAR] * 300)["found"] == 300
    assert summary("report", [NEAR])["examples"] == [
        {"split": "test", "place": "test.jsonl:1", "train": "rows.jsonl:9", "prompt": 0.75, "reply": 0.5}
    ]
    assert summary("off", None) == {"policy": "off", "found": None}
    assert str(NEAR) == "test.jsonl:1: its prompt is nearly that of rows.jsonl:9 (prompt 0.75, reply 0.50)"
