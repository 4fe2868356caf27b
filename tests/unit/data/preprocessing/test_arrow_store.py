"""What is written to disk comes back as it was: examples, encoded rows, counts; by their number, in any order."""

import json
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.data.preprocessing.arrow_store import (
    ENCODED,
    EXAMPLES,
    ArrowTable,
    Examples,
    Rows,
    encoded_batch,
    example_batch,
    writing,
)
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.records import Example, Turn
from llmft.data.tokenization.codec import IGNORED, EncodedExample

text = st.text(st.characters(codec="utf-8"), max_size=20)
ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6)
turns = st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), text, text)
examples = st.builds(Example, st.lists(turns, min_size=1, max_size=4).map(tuple), text, text, text, text)


def stored(folder, schema, batches):
    file = folder / "x.arrow"
    with writing(file, schema) as write:
        for batch in batches:
            write(batch)
    return ArrowTable(file)


@given(batches=st.lists(st.lists(examples, max_size=4), min_size=1, max_size=4))
def test_examples_come_back(tmp_path_factory, batches):
    table = stored(tmp_path_factory.mktemp("x"), EXAMPLES, map(example_batch, batches))
    flat = [example for batch in batches for example in batch]
    found = Examples(table, np.arange(len(table)))
    assert list(found) == flat
    assert list(found[::-1]) == flat[::-1]
    assert [found[i] for i in range(len(flat))] == flat


@st.composite
def causal(draw):
    prompt, answer = draw(ids), draw(ids)
    labels = draw(st.sampled_from([[IGNORED] * len(prompt) + answer, prompt + answer]))
    flags = {"lost": draw(text), "untrained_turns": draw(st.integers(0, 3)), "place": draw(text)}
    if draw(st.booleans()):
        flags["weights"] = [draw(st.sampled_from([0.0, 0.5, 2.0])) for _ in labels]
    return EncodedExample(prompt + answer, labels, len(prompt), len(answer), len(answer), draw(st.booleans()), **flags)


seq2seq = st.builds(
    lambda source, target, merged: EncodedExample(source, target, len(source), len(target), len(target), merged=merged),
    ids, ids, st.booleans(),
)  # fmt: skip


@given(batches=st.lists(st.lists(causal() | seq2seq, max_size=4), min_size=1, max_size=3))
def test_encoded_rows_come_back(tmp_path_factory, batches):
    table = stored(tmp_path_factory.mktemp("x"), ENCODED, map(encoded_batch, batches))
    rows = [row for batch in batches for row in batch]
    assert list(Rows(table, np.arange(len(table)))) == rows
    assert list(pickle.loads(pickle.dumps(Rows(table, np.arange(len(table)))))) == rows


def test_labels_that_follow_from_the_ids_take_no_room():
    row = EncodedExample([1, 2, 3], [IGNORED, 2, 3], 1, 2, 2)
    other = EncodedExample([1, 2, 3], [1, 2, 3], 1, 2, 2)
    assert encoded_batch([row, other]).column("labels").to_pylist() == [None, [1, 2, 3]]


def test_counts_add_up_over_batches_and_files(tmp_path):
    whole, parts = RowCounts("f", "x"), [RowCounts("", None), RowCounts("", None)]
    for part, place in zip(parts, ("f:1", "f:2"), strict=True):
        part.read = 3
        part.drop(place, "answer", "too \ud800 long", "answer too long")
        part.bos_per_row[1] += 2
        part.longest["prompt"] = int(place[-1])
        part.without_stop.append(place)
        whole.add(part)
    whole.save(tmp_path)
    found = RowCounts("f", "x")
    found.add_saved(tmp_path)
    assert found.summary() == {**whole.summary(), "source": "f"}
    assert (found.read, found.dropped, found.first) == (
        6,
        Counter({"answer too long": 2}),
        "f:1: answer: too \ud800 long",
    )
    assert found.bos_per_row == {1: 4}
    found.drop("f:9", "prompt", "late", "late")
    found.write_rejected(tmp_path / "all.jsonl")
    listed = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [(row["place"], row["action"]) for row in listed] == [("f:1", "drop"), ("f:2", "drop"), ("f:9", "drop")]


@pytest.mark.parametrize("chosen", [[2, 0], []])
def test_facts_are_read_by_row(tmp_path, chosen):
    from llmft.data.preprocessing.arrow_store import COLUMNS, ColumnFiles, RowColumns

    files = ColumnFiles(tmp_path)
    for numbers in ([1, 2], [3]):
        files.write({name: np.array(numbers) for name in COLUMNS})
    files.close()
    facts = RowColumns(tmp_path)
    assert facts["ids"].tolist() == [1, 2, 3]
    assert facts.sizes(np.array(chosen, int)).tolist() == [[n + 1, n + 1] for n in chosen]
