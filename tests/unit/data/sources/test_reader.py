"""Files as they come: what is accepted, and what is said of the rest."""

import gzip
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from llmft.data.sources import decompress, digest, find, find_held_out, found_again, read
from llmft.data.sources import json as jsons
from llmft.utils import text
from llmft.utils.errors import UserError


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
        ('[{"a": 1}]\nmore', 2),
        ('[\n{"a":\n\n "x}\n]', 4),
    ],
)
def test_broken_json_names_the_line(tmp_path, text, line):
    file = tmp_path / "rows.json"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        rows_of(file)
    assert str(error.value).startswith(f"{file}:{line}: broken JSON: ")
    assert "no row behind it can be read" in str(error.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.jsonl", b"", ":1: the file is empty"),
        ("rows.json", b" \n ", ":1: the file is empty"),
        ("rows.json", b'[{"a": 1},\n{"a": "\xff"}]', ":2: not UTF-8 (byte 0xff)"),
        ("rows.json", b'{"a": 1}', ":1: a .json file must hold a list of rows"),
        ("rows.txt", b"x", "must end in .jsonl, .json, .csv, .tsv (each also .gz or .zst), .parquet or .xlsx"),
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
        (str(tmp_path), "the folder holds no file"),
        ("a/b/c.json", "no such file"),
    ]:
        with pytest.raises(UserError, match=message):
            find(path, "x")
    with pytest.raises(UserError, match="no sample is shipped for data=x"):
        find("sample", "x")


def test_a_hub_id_without_a_hub_says_what_to_do():
    with pytest.raises(UserError, match=r"data.path=someone/rows: .*Offline: .*data.path=FILE.jsonl"):
        list(read(find("someone/rows", "x")))


def test_a_line_that_is_no_text_is_a_fault_of_its_own(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n{"a": 3}')
    found = rows_of(file)
    assert [f.fault for f in found] == [None, "not UTF-8 (byte 0xff); save the file as UTF-8", None]
    assert found[1].place == f"{file}:2"


ROWS = [{"q": "x\u2028y", "a": 'say "hi"\r\nand, go'}, {"q": "2", "a": ""}]


def written(folder, ending):
    """The same two rows in every kind of file."""
    texts = {
        ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
        ".json": json.dumps({"q": [r["q"] for r in ROWS], "a": [r["a"] for r in ROWS]}),
        ".csv": 'q,a\r\n"x\u2028y","say ""hi""\r\nand, go"\r\n2,\r\n',
        ".tsv": 'q\ta\nx\u2028y\t"say ""hi""\r\nand, go"\n2\t\n',
    }
    file = folder / f"rows{ending}"
    kind, _, packer = ending[1:].partition(".")
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
        return file
    data = texts[f".{kind}"].encode()
    if packer == "gz":
        data = gzip.compress(data)
    if packer == "zst":
        data = pyarrow.compress(data, codec="zstd", asbytes=True)
    file.write_bytes(data)
    return file


PLAIN = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
PACKED = tuple(f"{ending}{packer}" for ending in PLAIN[:-1] for packer in (".gz", ".zst"))


@pytest.mark.parametrize("ending", [*PLAIN, *PACKED])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, ending):
    file = written(tmp_path, ending)
    found = rows_of(file)
    assert [located.row for located in found] == ROWS
    places = (2, 4) if ending[1:4] in ("csv", "tsv") else (1, 2)  # the first line is the header, the first row has two
    assert [located.place for located in found] == [f"{file}:{number}" for number in places]


@pytest.mark.parametrize("ending", PACKED)
def test_a_packed_file_that_is_cut_short_is_no_shorter_file(tmp_path, ending):
    file = written(tmp_path, ending)
    file.write_bytes(file.read_bytes()[:-6])
    with pytest.raises(UserError, match=r"cannot be read: "):
        rows_of(file)


@pytest.mark.parametrize("ending", [".csv.gz", ".jsonl.zst", ".parquet"])
def test_what_is_not_what_its_ending_says(tmp_path, ending):
    file = tmp_path / f"rows{ending}"
    file.write_bytes(b"just text, for quite a while longer than a header")
    with pytest.raises(UserError, match=f"^{file}: cannot be read: "):
        rows_of(file)


def test_shards_keep_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for name in ("b.jsonl", "a.csv", "c.txt"):
        (tmp_path / "d" / name).write_text("q\n1\n" if name == "a.csv" else '{"q": "2"}\n')
    (tmp_path / "d" / "empty.jsonl").write_text("")
    for path in ("d", "d/*", ["d/a.csv", "d/b.jsonl"]):
        found = list(read(find(path, "x")))
        assert [(f.place, f.row) for f in found] == [("d/a.csv:2", {"q": "1"}), ("d/b.jsonl:1", {"q": "2"})]
    with pytest.raises(UserError, match=r"data.path=d/\*.parquet: no file"):
        find("d/*.parquet", "x")


def test_the_digest_of_shards_changes_with_a_name_or_a_byte(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text("{}")
    first = find(str(tmp_path), "x").sha256
    (tmp_path / "b.jsonl").rename(tmp_path / "c.jsonl")
    second = find(str(tmp_path), "x").sha256
    (tmp_path / "c.jsonl").write_text("[]")
    assert len({first, second, find(str(tmp_path), "x").sha256}) == 3
    with pytest.raises(UserError, match=r"has the SHA-256 [0-9a-f]{64}, but data.sha256 is 00"):
        find(str(tmp_path), "x", sha256="00")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q,q\n1,2\n", 'the first line must name the fields, each once, got "q" twice'),
        ('q,a\n1,2\n"3,4\n5,6\n', "rows.csv:3: broken CSV"),
        ('q,a\n1,2\n"3"x,4\n5,6\n', "rows.csv:3: broken CSV (line 3)"),
        ("q,a\r1,2\r", "rows.csv:1: broken CSV (line 1): a carriage return outside of quotes; save"),
        ("", "rows.csv:1: the file is empty"),
    ],
)
def test_a_table_that_cannot_be_trusted(tmp_path, text, message):
    file = tmp_path / "rows.csv"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        rows_of(file)
    assert message in str(error.value)


def test_a_bad_row_of_a_table_is_its_own_fault(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes(b"q,a\n1,2\n3\n\n4,5,6\n7,\x81\n8,9\n")
    assert [(f.place.rpartition(":")[2], f.fault) for f in rows_of(file)] == [
        ("2", None),
        ("3", "has 1 fields, the first line names 2"),
        ("5", "has 3 fields, the first line names 2"),
        ("6", "not UTF-8 (byte 0x81); save the file as UTF-8"),
        ("7", None),
    ]


def test_a_key_that_stands_twice_is_no_row(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": "1", "a": "2"}\n{"a": {"b": 1}}\n')
    assert rows_of(file)[0].fault == 'broken JSON: the field "a" is there twice'
    assert rows_of(file)[1].fault is None


def test_a_long_json_list_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(jsons, "CHUNK", 7)
    file = tmp_path / "rows.json"
    rows = [{"a": "\u00e9" * n, "n": 12345 + n} for n in range(30)] + [123456789]
    file.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]", encoding="utf-8")
    found = rows_of(file)
    assert [located.row for located in found] == rows
    assert [located.place for located in found] == [f"{file}:{n + 2}" for n in range(31)]


def test_json_lines_named_json(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text('{"a": 1}\n\n{"a":\n 2} {"a": 3}\n')
    assert [(f.place, f.row) for f in rows_of(file)] == [
        (f"{file}:1", {"a": 1}),
        (f"{file}:3", {"a": 2}),
        (f"{file}:4", {"a": 3}),
    ]
    file.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(UserError, match=r"rows.json:3: broken JSON: .*; no row behind it can be read"):
        rows_of(file)
    file.write_text('{"a": [1, 2], "b": [1]}')
    with pytest.raises(UserError, match="must be of one length"):
        rows_of(file)


@pytest.mark.parametrize(
    "text",
    ['[{"a": 1},\n{"a": 2}]', '\n[\n {"a": 1}, {"a": 2}]', '{\n"data": [{"a": 1}, {"a": 2}]}', '{\n"a": [1, 2]}'],
)
def test_a_json_value_named_jsonl(tmp_path, text):
    (tmp_path / "rows.jsonl").write_text(text)
    said = []
    found = list(read(find(str(tmp_path / "rows.jsonl"), "x"), said.append))
    assert ([f.row for f in found], said) == (
        [{"a": 1}, {"a": 2}],
        [f"{tmp_path}/rows.jsonl: holds one JSON value, not JSON lines"],
    )


def test_lines_that_are_lists_stay_lines(tmp_path):
    (tmp_path / "rows.jsonl").write_text('[{"a": 1}]\n[{"a": 2}]\n')
    assert [f.row for f in rows_of(tmp_path / "rows.jsonl")] == [[{"a": 1}], [{"a": 2}]]


def test_lists_that_are_named_as_splits(tmp_path):
    file, row = tmp_path / "rows.json", {"q": "Q"}
    for names, splits in {
        ("train", "Validation", "test"): ["train", "val", "test"],
        ("train", "dev", "valid"): ["train", "val", "val"],
        ("train", "other"): [None],  # two columns
    }.items():
        file.write_text(
            json.dumps({"version": 1, **{name: [row] for name in names}} if splits[0] else {n: [row] for n in names})
        )
        assert [f.split for f in rows_of(file)] == splits
    file.write_text(json.dumps({"train": [row, row], "test": [row]}))
    said = []
    found = list(read(find(str(file), "x"), said.append))
    assert [f.place for f in found] == [f"{file}:train:1", f"{file}:train:2", f"{file}:test:1"]
    assert said == [f"{file}: names its splits: train (2), test (1)"]


@pytest.mark.parametrize(
    ("name", "content", "ending"),
    [
        ("rows.ndjson", b'{"a": "1"}\n{"a": "2"}\n', ""),
        ("rows.txt", b'{"a": "1"}\n{"a": "2"}\n', ".json"),
        ("rows", b'[{"a": "1"}, {"a": "2"}]', ".json"),
        ("rows.txt", "a\tb\r\n1\tx\r\n2\ty\r\n".encode("utf-16"), ".csv"),
    ],
)
def test_a_file_whose_name_does_not_tell(tmp_path, name, content, ending):
    (tmp_path / name).write_bytes(content)
    said = []
    found = list(read(find(str(tmp_path / name), "x"), said.append))
    assert [f.row["a"] for f in found] == ["1", "2"]
    assert said[:1] == ([f"{tmp_path}/{name}: is read as {ending} by its content"] if ending else [])


@pytest.mark.parametrize("content", [b"", b"Some text, in prose.\nMore.\n", b"\x89PNG\0\0\0\r", b"# A, B\n\nword\n"])
def test_what_is_no_data_at_all(tmp_path, content):
    (tmp_path / "README").write_bytes(content)
    with pytest.raises(UserError, match=r"README: a file must end in .*, got 'no ending'"):
        find(str(tmp_path / "README"), "x")


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(decompress, "MAX_LINE", 50)
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\n{"a": "' + "x" * 500 + '"}\n{"a": 3}\n')
    assert [(f.place.rpartition(":")[2], f.fault is None) for f in rows_of(file)] == [
        ("1", True),
        ("2", False),
        ("3", True),
    ]


def test_the_hub_is_asked_for_what_was_said(monkeypatch):
    asked = {}

    def load_dataset(path, name, **options):
        asked.update(path=path, name=name, **options)
        return datasets.Dataset.from_list([{"a": "1"}, {"a": "2"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = find("some/rows", "x", revision="abc", subset="en", hub_split="test")
    assert [(f.place, f.row) for f in read(source)] == [("some/rows:1", {"a": "1"}), ("some/rows:2", {"a": "2"})]
    assert asked == {"path": "some/rows", "name": "en", "split": "test", "revision": "abc", "streaming": False}


def test_a_hub_data_set_is_streamed_as_often_as_it_is_read(monkeypatch):
    whole = datasets.Dataset.from_list([{"a": "1"}, {"a": "2"}])
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, streaming, **__: whole.to_iterable_dataset() if streaming else None
    )
    source = find("some/rows", "x", streaming=True)
    assert [f.row for f in read(source)] == [f.row for f in read(source)] == [{"a": "1"}, {"a": "2"}]
    assert source.hub is not None
    assert source.hub.fingerprint


def test_arguments_of_calls_have_no_nulls_of_other_rows_and_json_keeps_its_own(tmp_path):
    calls = [{"name": "f", "arguments": {"city": "Bonn"}}, {"name": "g", "arguments": {"deep": [{"n": 1}, {"m": 2}]}}]
    rows = [{"messages": [{"role": "assistant", "tool_calls": [call]}], "note": None} for call in calls]
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*rows, {"note": "x"}]), file)
    assert [located.row for located in rows_of(file)] == [*rows, {"messages": None, "note": "x"}]
    file = tmp_path / "rows.jsonl"
    row = {"messages": [{"tool_calls": [{"arguments": {"city": None}}]}]}
    file.write_text(json.dumps(row))
    assert rows_of(file)[0].row == row


def test_a_relative_path_is_found_again_where_the_run_began(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    file = there / "rows.jsonl"
    file.write_text("{}\n")
    trained = digest(file)
    monkeypatch.chdir(here)
    assert found_again("rows.jsonl", there, trained) == str(file)
    assert found_again("sample", there, trained) == "sample"
    assert found_again("owner/name", there, None) == "owner/name"
    (here / "rows.jsonl").write_text("other\n")  # the digest decides
    assert found_again("rows.jsonl", there, trained) == str(file)
    (here / "rows.jsonl").write_text("{}\n")
    assert found_again("rows.jsonl", there, trained) == "rows.jsonl"
    with pytest.raises(UserError, match=rf"data.path=no.jsonl: no such file \(looked in {here}, and in {there}, where"):
        found_again("no.jsonl", there, trained)


def test_a_path_from_the_environment_stays_an_interpolation(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_TEST_PRIVATE", str(tmp_path))
    monkeypatch.setattr(text, "_variables", {"LLMFT_TEST_PRIVATE"})
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\n')
    for source in (find(str(file), "x"), find_held_out("data.val_path", str(file))):
        assert source.given == source.parts[0].given == "${oc.env:LLMFT_TEST_PRIVATE}/rows.jsonl"


def test_rows_below_a_key(tmp_path):
    (tmp_path / "rows.json").write_text('{"version": "1", "data": [{"q": "Q"}, {"q": "R"}]}')
    assert [parsed.row for parsed in read(find(str(tmp_path / "rows.json"), "x"))] == [{"q": "Q"}, {"q": "R"}]
