"""A row knows which of its fields its data set did not look at."""

import json

from llmft.data.academic import Academic
from llmft.data.alpaca import Alpaca
from llmft.data.preprocessing.unread_fields import TrackedRow

ROW = {"messages": [{"role": "user", "content": "Q", "at": 7}, {"role": "assistant", "content": "A"}], "meta": {"a": 1}, "note": None, "none": []}  # fmt: skip


def test_fields_with_a_value_that_nobody_read():
    row = TrackedRow(ROW)
    assert row.unread() == {"messages", "meta"}
    assert row == ROW
    Academic.to_example(row)
    assert row.unread() == {"meta", "messages[].at"}


def test_any_way_of_reading_counts():
    for read in (lambda row: row["meta"], lambda row: row.get("meta"), dict, lambda row: {**row}, json.dumps,
                 lambda row: list(row.values()), lambda row: row.get("meta", 1)):  # fmt: skip
        row = TrackedRow({"meta": 1})
        read(row)
        assert not row.unread(), read
    row = TrackedRow({"meta": 1})
    assert "meta" in row
    assert (row.get("other"), list(row)) == (None, ["meta"])
    assert row.unread() == {"meta"}


def test_calls_are_kept_whole_and_read():
    call = {"id": "c", "extra": [{"x": None}], "function": {"name": "f", "arguments": {"a": [{"b": None}]}}}
    row = TrackedRow({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "tool_calls": [call]}]})
    assert [json.loads(found) for found in Academic.to_example(row).tool_calls] == [call]
    assert row.unread() == set()


def test_alpaca_names_what_it_does_not_know():
    row = TrackedRow({"instruction": "I", "input": "", "output": "O", "system": "S", "text": "all of it"})
    Alpaca.to_example(row)
    assert row.unread() == {"text"}


def test_turns_in_json_text_are_tracked_too():
    row = TrackedRow({"messages": json.dumps(ROW["messages"])})
    Academic.to_example(row)
    assert row.unread() == {"messages[].at"}
