"""Whatever a file holds: rows or one clear error, never a traceback; rows read are rows kept and dropped."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmft.data.academic import Academic
from llmft.data.custom import Custom
from llmft.data.preprocessing.arrow_store import example_batch
from llmft.data.preprocessing.read_examples import ExampleReader
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.records import RowError
from llmft.data.sources import find
from llmft.data.sources.encoding import HEAD
from llmft.data.sources.json import is_one_value
from llmft.utils.errors import UserError
from tests.robustness.corpus import FILES, GOOD


def examples_of(path, *, to_example=Academic.to_example, invalid="drop", duplicates="keep"):
    account = RowCounts("f", None)
    reading = ExampleReader(find(str(path), "x"), "academic", to_example, None, None, invalid, duplicates)
    return list(reading.examples(account, {})), account


def one_clear_message(error):
    text = str(error)
    text.encode()  # can be printed
    assert "Traceback" not in text
    assert text.isprintable() or "\n" in text


@pytest.mark.parametrize("name", FILES)
def test_the_corpus(tmp_path, name):
    content, expected = FILES[name]
    file = tmp_path / name
    file.write_bytes(content)
    if expected is None:
        with pytest.raises(UserError) as error:
            examples_of(file)
        one_clear_message(error.value)
        assert name in str(error.value)
        return
    found, account = examples_of(file)
    assert (len(found), account.dropped.total(), account.read) == (*expected, sum(expected))
    example_batch(found)
    account.write_rejected(tmp_path / "rejected.jsonl")
    if expected[1]:
        with pytest.raises(UserError) as error:
            examples_of(file, invalid="error")
        one_clear_message(error.value)


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jsonl")  # reading it would wait for ever
    for name in ("folder", "loop", "gone", "pipe"):
        with pytest.raises(UserError, match=r"folder holds no file|no such file"):
            examples_of(tmp_path / f"{name}.jsonl")


ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.zst")
pieces = st.sampled_from([GOOD.encode(), b"\n", b"\r\n", b",", b"[", b"]", b"{", b"}", b'"', b'""', b"\\", b"\t", b"\0", b"\xff", b"null",
                          b"messages", b"NaN", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xe2\x80\xa8", b'{"messages":', b" "])  # fmt: skip
contents = st.lists(pieces | st.binary(max_size=6), max_size=25).map(b"".join)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=contents, ending=st.sampled_from(ENDINGS), duplicates=st.sampled_from(["keep", "drop"]))
def test_any_bytes(tmp_path, content, ending, duplicates):
    file = tmp_path / f"rows{ending}"
    file.write_bytes(content)
    try:
        found, account = examples_of(file, duplicates=duplicates)
    except UserError as error:
        one_clear_message(error)
        return
    assert account.read == len(found) + account.dropped.total()
    account.write_rejected(tmp_path / "rejected.jsonl")
    if ending == ".jsonl" and not is_one_value(content[:HEAD]):  # and no line is lost without a word
        rows = [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
        assert account.read == len(rows)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "type", "text", "messages"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(value=json_values)
def test_any_value_is_an_example_or_a_fault_of_the_row(value):
    custom: Any = Custom.__new__(Custom)
    custom.config = SimpleNamespace(path=None, encoding=None, delimiter=None, sheet=None)
    for columns in (
        {"messages": "messages", "system": "text"},
        {"instruction": "text", "output": "value", "input": "content", "id": "role"},
    ):
        custom.column_names = columns
        for to_example in (custom.to_example, Academic.to_example):
            try:
                example = to_example(value)
            except RowError as error:
                one_clear_message(error)
            else:
                assert example.answer.strip()
                example_batch([example])
