"""Notes on the texts of a data set: when there is one, with which numbers, and that good data has none."""

import pytest

from llmft.data.academic import Academic
from llmft.data.preprocessing.text_marks import html_in, placeholder_in
from llmft.data.records import Example, Turn
from llmft.data.sources import SAMPLES, find, read
from llmft.data.support import Support
from tests.conftest import DATA, SHARED
from tests.support.text_notes import notes_of
from tests.unit.data.test_datasets import CLASSES


def pairs(*texts):
    return [
        Example((Turn("user", prompt),), answer, place=f"rows.jsonl:{n}") for n, (prompt, answer) in enumerate(texts, 1)
    ]


def test_placeholders_and_html_have_a_count_and_a_place():
    texts = [
        ("Hi?", "Hello."),
        ("Who?", "I am {{ name }}."),
        ("Order?", "It is {order_id}, [INSERT DATE]"),
        ("Why?", "<p>So.</p>"),
    ]
    assert notes_of(pairs(*texts)) == [
        "2 of 4 rows have an unfilled placeholder such as {{ name }} (rows.jsonl:2)",
        "1 of 4 answers have HTML such as <p> (rows.jsonl:4)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "the set {n}",
        r"\frac{name}{2}",
        "`{name}` in code",
        "```\n{{name}}\n```",
        'print(f"{name}")',
        "${name}",
        "[INSERTED]",
        "{{}}",
        '{"name": "x"}',
    ],
)
def test_what_is_no_placeholder(text):
    assert placeholder_in([text]) == ""


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [("Write a web page.", "<p>x</p>"), ("Q", "a < b > c"), ("Q", "use `<b>`"), ("Q", "R&D"), ("What is <b>?", "<b>")],
)
def test_what_is_no_html(prompt, answer):
    assert html_in(*pairs((prompt, answer))) == ""


def test_answers_that_begin_alike_are_shown_as_far_as_they_agree():
    begins = [(f"Q{n}?", f"As an AI language model I say {n}.") for n in range(10)]
    others = [(f"Why {n}?", f"Reason {n} is the one that counts.") for n in range(10)]
    assert notes_of(pairs(*begins, *others)) == [
        '10 of 20 answers begin with "As an AI language model I say" (rows.jsonl:1)'
    ]
    assert notes_of(pairs(*begins[:9], *others)) == []  # fewer than half
    assert notes_of(pairs(*begins)) == []  # too few answers to say so


def test_one_answer_for_many_prompts():
    canned = [(f"Q{n}?", "Please contact our support team.") for n in range(5)]
    others = [(f"Why {n}?", f"Reason {n} is the one that counts.") for n in range(45)]
    assert notes_of(pairs(*canned, *others)) == [
        'one answer for 5 of 50 different prompts: "Please contact our support team." (rows.jsonl:1)'
    ]
    assert notes_of(pairs(*canned, *others, *others[:9], ("More?", "Another one of these."))) == []  # 5 of 51
    assert notes_of(pairs(*[canned[0]] * 5, *others)) == []  # one prompt


def test_labels_are_few_by_design_unless_nearly_all_are_one():
    labels = [(f"Q{n}?", '{"mood": "good", "of": "the", "day": "x"}' if n % 3 else "bad") for n in range(30)]
    assert notes_of(pairs(*labels)) == []
    assert notes_of(pairs(*((prompt, "yes") for prompt, _ in labels))) == [
        'one answer for 30 of 30 different prompts: "yes" (rows.jsonl:1)'
    ]


@pytest.mark.parametrize("name", [*CLASSES, "support"])
def test_the_shipped_rows_have_no_notes(name):
    file = next(SAMPLES.glob(f"{name}.json*"))
    rows = [parsed.row for parsed in read(find(str(file), name))]
    assert notes_of([{**CLASSES, "support": Support}[name].to_example(row) for row in rows]) == []


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets that llmft was written for are not in the repository")
@pytest.mark.parametrize("name", DATA)
def test_the_data_sets_have_no_notes_but_nine_answers_with_html(name):
    rows = [parsed.row for parsed in read(find(str(SHARED / DATA[name]), name))]
    found = notes_of([CLASSES[name].to_example(row) for row in rows])
    assert len(found) == (CLASSES[name] is Academic)
    assert all("9 of 1,152 answers have HTML such as <img src=" in line for line in found)
