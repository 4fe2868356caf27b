"""The audit's numbers, by hand."""

from collections import Counter

import numpy as np
import pytest
from rich.console import Console

from llmft.data.preprocessing.audit import Audit, ambiguous, bars, repeated, summary
from llmft.data.preprocessing.leakage import leaks
from llmft.data.preprocessing.row_columns import ODD, normalized
from llmft.data.preprocessing.row_counts import RowCounts


def test_lengths_by_hand():
    assert summary(np.arange(1, 101)) == {"median": 50, "p95": 95, "max": 100}
    assert summary(np.array([7])) == {"median": 7, "p95": 7, "max": 7}
    assert summary(np.array([], int)) == {"median": 0, "p95": 0, "max": 0}


def test_repeats_and_prompts_with_several_answers():
    assert repeated(np.array([5, 5, 5, 6, 7, 7])) == 3
    # prompt 1 has answers a, a; prompt 2 has a, b; prompt 3 has a, b, b
    assert ambiguous(np.array([1, 2, 3, 1, 2, 3, 3]), np.array([10, 20, 30, 10, 21, 31, 31])) == 5
    assert ambiguous(np.array([], int), np.array([], int)) == 0


def test_leaks_are_named_by_row():
    prompts = np.array([1, 2, 3, 1, 4, 2])
    found = leaks(prompts, {"train": np.array([0, 1]), "val": np.array([2, 3]), "test": np.array([5, 4])})
    assert {name: rows.tolist() for name, rows in found.items()} == {"val": [3], "test": [5]}


@pytest.mark.parametrize(
    ("one", "other", "like"), [("Say  hi\n", "say hi", True), ("\uff21b", "ab", True), ("a b", "ab", False)]
)
def test_what_hardly_differs(one, other, like):
    assert (normalized(one) == normalized(other)) == like


def test_which_characters_are_odd():
    assert not ODD.search("plain\ttext\r\n\u00e9 \u4e2d \U0001f468\u200d\U0001f469 \u0645\u200c\u0646")
    assert all(ODD.search(f"a{char}b") for char in "\x00\x1b\x7f\x85\u200b\u2028\u202e\ufeff\ufffd\ue000")


def test_bars_have_round_steps_and_a_rest():
    found = [(str(label), str(count)) for label, count, _ in bars(np.array([*range(1, 200), 5000]), 100)]
    assert found[0] == ("0 to 19", "19")
    assert found[-1] == ("240 and more", "1")
    assert sum(int(count) for _, count in found) == 200
    assert [bar.style for _, _, bar in bars(np.array([10, 60, 110]), 100)][-1] == "red"
    assert bars(np.array([], int), 5) == []


def facts(**columns):
    rows = len(next(iter(columns.values())))
    zero = np.zeros(rows, int)
    names = (
        "prompt_tokens",
        "answer_tokens",
        "prompt_characters",
        "answer_characters",
        "prompt",
        "prompt_like",
        "row",
        "row_like",
        "odd",
        "lost",
    )
    return {name: np.array(columns.get(name, zero)) for name in names}


def test_the_audit_of_a_split():
    found = facts(
        prompt_tokens=[10, 20, 30, 10], prompt=[1, 2, 3, 1], prompt_like=[1, 1, 3, 1], row=[1, 2, 3, 4], row_like=[1, 1, 3, 4],
        odd=[True, False, False, False],
    )  # fmt: skip
    counts = RowCounts("", None, {"prompt": 15, "answer": 9}, dropped=Counter({"answer too long": 2}))
    audit = Audit.of(found, {"train": np.array([0, 1, 2]), "val": np.array([3])}, counts)  # pyright: ignore[reportArgumentType]
    train, val = audit.splits["train"], audit.splits["val"]
    assert (train["rows"], train["prompt_tokens"]["max"], train["over_prompt"]) == (3, 30, pytest.approx(2 / 3))
    assert (train["duplicates"], train["near_duplicates"], train["odd_characters"]) == (0, 1, 1)
    assert (val["leaked"], val["near_leaked"]) == (1, 1)
    assert "train: 1 of 3 rows repeat another row except for case and white space" in audit.lines()
    assert any(line.startswith("val: 1 of 1 rows have a prompt that is in train too") for line in audit.lines())
    console = Console(width=80, record=True)
    console.print(audit.table(), audit.histogram())
    shown = console.export_text()
    assert "prompt was over 15 tokens and is trimmed" in shown
    assert "66.7%" in shown
    assert "answer was over" not in shown  # the rows of such an answer are dropped, and in no split
    assert "dropped, in no split: 2 with an answer over 9 tokens" in audit.notes()


def test_counts_of_0_are_one_line_and_a_training_shows_no_counts():
    found = facts(
        prompt_tokens=[10, 20], prompt=[1, 2], prompt_like=[1, 2], row=[1, 2], row_like=[1, 2], odd=[True, False],
    )  # fmt: skip
    audit = Audit.of(found, {"train": np.array([0, 1])}, RowCounts("", None, {"prompt": 15, "answer": 9}))  # pyright: ignore[reportArgumentType]
    console = Console(width=80, record=True)
    console.print(audit.table())
    complete = console.export_text()
    console.print(audit.table(brief=True))
    brief = console.export_text()
    assert "rows that hold unprintable characters" in complete
    assert "rows that repeat another row" not in complete
    assert audit.notes() == ["no rows: duplicates, near duplicates, other answers, lost characters"]
    assert "unprintable" not in brief
    assert "prompt tokens: median/95 %/max" in brief
