"""Files as they come: what is accepted, and what is said of the rest."""

import pytest

from llmft.errors import UserError
from llmft.sources import find, read


def rows_of(file):
    return list(read(find(str(file), "x")))


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}\n{"a": 2}',
        b'{"a": 1}\n{"a": 2}\n',
        b'{"a": 1}\r\n{"a": 2}\r\n',
        b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n',
        b'{"a": 1}\n\n{"a": 2}\n\n',
    ],
    ids=["no newline at the end", "newline", "CRLF", "BOM", "blank lines"],
)
def test_jsonl_is_accepted(tmp_path, data):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(data)
    assert [located.row for located in rows_of(file)] == [{"a": 1}, {"a": 2}]


def test_a_string_may_hold_a_line_separator(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": "x\u2028y\u0085z"}\n{"a": "2"}\n', encoding="utf-8")
    found = rows_of(file)
    assert [located.row["a"] for located in found] == ["x\u2028y\u0085z", "2"]
    assert found[1].place == f"{file}:2"


def test_broken_jsonl_lines_are_named_and_the_others_kept(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\n{"a": \n\n{"a": 3}\n' + "[" * 100_000 + "\n")
    found = rows_of(file)
    assert [(f.place.rpartition(":")[2], f.fault is None) for f in found] == [
        ("1", True),
        ("2", False),
        ("4", True),
        ("5", False),
    ]
    assert "broken JSON" in str(found[1].fault)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[\n{"a": 1},\n{"a": }\n]', 3),
        ('[\n{"a": 1}\n{"a": 2}\n]', 3),
        ('[\n{"a": 1},\n', 3),
        ('[{"a": 1}]\nmore', 1),
        ('[\n{"a":\n\n "x}\n]', 4),
    ],
)
def test_broken_json_names_the_line(tmp_path, text, line):
    file = tmp_path / "rows.json"
    file.write_text(text)
    last = rows_of(file)[-1]
    assert last.fault is not None
    assert last.place == f"{file}:{line}"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.jsonl", b"", ":1: the file is empty"),
        ("rows.json", b" \n ", ":1: the file is empty"),
        ("rows.jsonl", b'{"a": 1}\n{"a": "\xff"}', ":2: not UTF-8 (byte 0xff)"),
        ("rows.json", b'{"a": 1}', ":1: a .json file must hold a list of rows"),
        ("rows.txt", b"x", "must end in .jsonl or .json"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, data, message):
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(UserError) as error:
        rows_of(file)
    assert str(file) in str(error.value)
    assert message in str(error.value)


def test_no_file_no_folder_no_sample(tmp_path):
    for path, message in [
        ("nope.jsonl", "no such file"),
        (str(tmp_path), "is a folder"),
        ("a/b/c.json", "no such file"),
    ]:
        with pytest.raises(UserError, match=message):
            find(path, "x")
    with pytest.raises(UserError, match="no sample is shipped for data=x"):
        find("sample", "x")


def test_a_hub_id_without_a_hub_says_what_to_do():
    with pytest.raises(UserError, match=r"data.path=someone/rows: .*Offline: .*data.path=FILE.jsonl"):
        list(read(find("someone/rows", "x")))
