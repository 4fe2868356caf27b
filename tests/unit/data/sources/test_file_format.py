"""Encodings and delimiters: what the content of a file shows, what is said of it, and what a pinned value refuses."""

import gzip
from pathlib import Path

import pytest

from llmft.data.sources import read_file
from llmft.data.sources.encoding import reads_well, unicode_encoding
from llmft.data.sources.file_format import FileFormat
from llmft.data.sources.tabular import delimiter_of
from llmft.utils.errors import UserError

TABLE = 'q,a\nWie groß?,"2 m,\nsagt €"\nÜber?,"Ja"\n'
ROWS = [{"q": "Wie groß?", "a": "2 m,\nsagt €"}, {"q": "Über?", "a": "Ja"}]


def rows_and_lines(content: bytes, name: str = "rows.csv", **layout: str):
    file, said = Path(name), []
    file.write_bytes(content)
    return list(read_file(name, file, FileFormat(keys="data", say=said.append, **layout))), said


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", []),
        ("utf-8-sig", []),
        ("utf-16", ["rows.csv: is UTF-16 (data.encoding=utf-16-le)"]),
        ("utf-16-le", ["rows.csv: is UTF-16 (data.encoding=utf-16-le)"]),
        ("utf-16-be", ["rows.csv: is UTF-16 (data.encoding=utf-16-be)"]),
        ("utf-32", ["rows.csv: is UTF-32 (data.encoding=utf-32-le)"]),
        ("cp1252", ['rows.csv: is Western European, not UTF-8: line 2 has "Wie groß?,"2 m," (data.encoding=cp1252)']),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_encoding_that_the_bytes_show(encoding, said, packed):
    content, name = TABLE.encode(encoding), "rows.csv"
    if packed:
        content, name = gzip.compress(content), "rows.csv.gz"
    found, lines = rows_and_lines(content, name)
    assert [(f.place, f.row, f.fault) for f in found] == [
        (f"{name}:2", ROWS[0], None),
        (f"{name}:4", ROWS[1], None),
    ]
    assert lines == [line.replace("rows.csv", name) for line in said]
    found, lines = rows_and_lines(content, name, encoding=encoding)
    assert ([f.row for f in found], lines) == (ROWS, [])


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_json_in_utf16(name):
    text = (
        '[{"a": "ß\U0001f600"},\n{"a": "\u2028"}]' if name == "rows.json" else '{"a": "ß\U0001f600"}\n{"a": "\u2028"}'
    )
    for encoding in ("utf-16", "utf-16-le"):
        found, lines = rows_and_lines(text.encode(encoding), name)
        assert [(f.place, f.row) for f in found] == [
            (f"{name}:1", {"a": "ß\U0001f600"}),
            (f"{name}:2", {"a": "\u2028"}),
        ]
        assert lines == [f"{name}: is UTF-16 (data.encoding=utf-16-le)"]


def test_json_of_one_byte_a_character_needs_the_key():
    content = '{"a": "b"}\n{"a": "é"}'.encode("cp1252")
    assert rows_and_lines(content, "rows.jsonl")[0][1].fault == (
        "not UTF-8 (byte 0xe9); save the file as UTF-8, or name its encoding, such as data.encoding=cp1252"
    )
    assert rows_and_lines(content, "rows.jsonl", encoding="cp1252")[0][1].row == {"a": "é"}
    with pytest.raises(UserError, match=r"rows\.json:2: not UTF-8 \(byte 0xe9\); .*data\.encoding=cp1252"):
        rows_and_lines(b"[" + content.replace(b"\n", b",\n") + b"]", "rows.json")


@pytest.mark.parametrize(
    ("encoding", "content", "message"),
    [
        ("cp1252", "q,a\nx,y\nß,é\n".encode(), "rows.csv:3: the file is UTF-8 (bytes c3 9f), but data.encoding is cp1252; data.encoding=null"),
        ("utf-16", b"q,a\nx,y\n", "rows.csv:1: the file is not UTF-16 (first bytes 71 2c 61 0a), but data.encoding is utf-16; data.encoding=null"),
        ("utf-8", "q,a\nx,y\n".encode("utf-16"), "rows.csv:1: the file is UTF-16-LE (first bytes ff fe 71 00), but data.encoding is utf-8"),
        ("utf-16-be", "q,a\nx,y\n".encode("utf-16-le"), "rows.csv:1: the file is UTF-16-LE"),
        ("cp1252", b"\x81,a\nx,y\n", "rows.csv:1: the names of the fields are not cp1252 (byte 0x81); data.encoding is another, or null"),
    ],
)  # fmt: skip
def test_a_wrong_encoding_is_refused(encoding, content, message):
    with pytest.raises(UserError) as caught:
        rows_and_lines(content, encoding=encoding)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "content", "fault"),
    [
        ("cp1252", b"q,a\nx,\x81\nx,y\n", "not cp1252 (byte 0x81); data.encoding is another, or null for what the file shows"),
        ("ascii", b"q,a\nx,\xe9\nx,y\n", "not ascii (byte 0xe9); data.encoding is another, or null for what the file shows"),
        ("utf-8", b"q,a\nx,\xe9\nx,y\n", "not UTF-8 (byte 0xe9); save the file as UTF-8, or name its encoding, such as data.encoding=cp1252"),
        ("shift_jis", b"q,a\nx,\xfd\nx,y\n", "not shift_jis (byte 0xfd); data.encoding is another, or null for what the file shows"),
    ],
)  # fmt: skip
def test_a_byte_that_is_no_text_is_a_fault_of_its_row(encoding, content, fault):
    found, _ = rows_and_lines(content, encoding=encoding)
    assert [(f.place, f.fault) for f in found] == [("rows.csv:2", fault), ("rows.csv:3", None)]


def test_damage_in_utf8_is_not_another_encoding():
    found, said = rows_and_lines("q,a\nß,1\n?,2\nü,3\n".encode().replace(b"?", b"\xe9"))
    assert ([f.fault is None for f in found], said) == ([True, False, True], [])


@pytest.mark.parametrize(
    ("text", "encoding", "well"),
    [
        ("Où est le café ? À côté de l’école", "cp1252", True),
        ("Price?,£30 – “fine”", "cp1252", True),
        ("¿Dónde está el baño?", "cp1252", True),
        ("Þetta er íslenska, það er gott", "cp1252", True),
        ("Как дела? Хорошо", "cp1251", False),
        ("Gdzie jest łazienka? Tam są drzwi, proszę, mówią", "cp1250", False),
        ("Nasılsın? İyiyim teşekkürler", "cp1254", False),
        ("你好吗？我很好谢谢", "gb18030", False),
        ("Was ist größer? Österreich", "cp850", False),
        ("Où est le café ? À côté de l’école", "mac_roman", False),
    ],
)
def test_what_reads_well_as_western_european(text, encoding, well):
    assert reads_well(text.encode(encoding).decode("cp1252", "llmft-marked")) is well


def test_another_encoding_is_proposed_with_its_text():
    with pytest.raises(UserError, match=r'may be cp1251, "вопрос,ответ": data\.encoding=cp1251$'):
        rows_and_lines("вопрос,ответ\nКак дела?,Хорошо\nГде метро?,Там\n".encode("cp1251"))


def test_zero_bytes_in_other_text_are_no_utf16():
    assert unicode_encoding(b'{"a": "b"}\n\0\0\0\n{"a": "b"}\n') is None
    assert unicode_encoding(b"") is None
    assert unicode_encoding("問,答\n".encode("utf-16-be")) == "utf-16-be"


@pytest.mark.parametrize(
    ("lines", "delimiter"),
    [
        (["q;a\n", "1,5;2\n"], ";"),
        (["q|a\n", "1,5|2\n"], "|"),
        (["q\ta\n", "1,5\t2\n"], "\t"),
        (["first, second;answer\n", "a;b\n", "a, b and c;d\n"], ";"),
        (["q,a\n", "a;b,c\n"], ","),
        (["text\n", "a, b\n"], ","),
        (['q;a\n', '"x;\n', 'y";z\n'], ";"),
        (["q,a;b\n"], ","),
    ],
)  # fmt: skip
def test_the_delimiter_that_most_rows_fit(lines, delimiter):
    assert delimiter_of(lines) == delimiter


def test_a_delimiter_is_said_and_pinned():
    content = b"q;a\n1,5;2\n"
    found, said = rows_and_lines(content)
    assert [f.row for f in found] == [{"q": "1,5", "a": "2"}]
    assert said == ['rows.csv: fields are separated by ";" (data.delimiter=semicolon)']
    for pinned in ("semicolon", ";"):
        assert rows_and_lines(content, delimiter=pinned) == (found, [])
    found, said = rows_and_lines(b"q\ta\n1\t2\n", delimiter="\\t")
    assert ([f.row for f in found], said) == ([{"q": "1", "a": "2"}], [])
    with pytest.raises(
        UserError, match=r'one field named "q;a": is it separated by ";", not by ","\? data\.delimiter=semicolon'
    ):
        rows_and_lines(content, delimiter="comma")
