"""The shipped rows, and rows of a file."""

import json

import pytest

from llmft.evaluation.retention.rows import SHIPPED, read_rows
from llmft.utils.errors import UserError


def test_shipped_rows():
    rows = read_rows("shipped")
    assert len(rows) == 120
    assert {row.category for row in rows} == {"facts", "arithmetic", "formats", "refusals", "small talk"}
    assert len({row.example.context[0].content for row in rows}) == 120
    assert len({row.example.id for row in rows}) == 120
    languages = [json.loads(line)["language"] for line in SHIPPED.read_text(encoding="utf-8").splitlines()]
    assert {name: languages.count(name) for name in set(languages)} == {"en": 72, "de": 24, "fr": 24}


def test_rows_of_a_file(tmp_path):
    file = tmp_path / "own.jsonl"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    plain = {"instruction": "Add.", "input": "1 + 1", "output": "2", "category": "sums", "id": 7}
    file.write_text(f"{json.dumps({'messages': turns})}\n{json.dumps(plain)}\n")
    chat, flat = read_rows(str(file))
    assert (chat.example.answer, chat.category, chat.example.id) == ("Hello", "general", "1")
    assert (flat.example.context[0].input, flat.category, flat.example.id) == ("1 + 1", "sums", "7")
    assert flat.example.place == f"{file}:2"


def test_every_invalid_row_is_named(tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text('{"instruction": "a"}\n{"instruction": "a", "output": "b"}\nno JSON\n')
    with pytest.raises(
        UserError, match=r"evaluate\.retention: 2 faults(.|\n)*own\.jsonl:1: output(.|\n)*own\.jsonl:3"
    ) as error:
        read_rows(str(file))
    assert "own.jsonl:2" not in str(error.value)


def test_no_such_file():
    with pytest.raises(UserError, match=r"evaluate\.retention=absent\.jsonl: no such file"):
        read_rows("absent.jsonl")
