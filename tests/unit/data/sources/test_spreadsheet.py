"""XLSX files: rows by the spreadsheet's numbers, values as they are, and files that are no spreadsheet or a hostile one."""

import datetime
import sys
import zipfile
from pathlib import Path

import pytest

from llmft.data.sources import read_file
from llmft.data.sources.file_format import FileFormat
from llmft.utils.errors import UserError
from tests.robustness.corpus import bomb

openpyxl = pytest.importorskip("openpyxl")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def saved(**sheets: list[list[object]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save("book.xlsx")
    return Path("book.xlsx")


def rows_and_lines(file: Path, sheet: str | None = None):
    said = []
    return list(read_file(file.name, file, FileFormat(sheet=sheet, keys="data", say=said.append))), said


def with_part(file: Path, name: str, change) -> Path:
    """The same file with another text in a part."""
    with zipfile.ZipFile(file) as packed:
        parts = {info.filename: packed.read(info) for info in packed.infolist()}
    with zipfile.ZipFile(file, "w") as packed:
        for part, content in parts.items():
            packed.writestr(part, change(content.decode()) if part == name else content)
    return file


def test_rows_have_the_numbers_and_values_of_the_spreadsheet():
    day = datetime.datetime(2026, 11, 30)
    file = saved(
        rows=[
            [],
            ["q", "a", "n"],
            ["Q1", "two\nlines_x000D_\n", 3],
            [],
            ["Q2", True, day],
            ["Q3", 2.5, day.replace(hour=8)],
        ]
    )
    found, said = rows_and_lines(file)
    assert [(f.place, f.row) for f in found] == [
        ("book.xlsx:3", {"q": "Q1", "a": "two\nlines\r\n", "n": 3}),
        ("book.xlsx:5", {"q": "Q2", "a": True, "n": "2026-11-30"}),
        ("book.xlsx:6", {"q": "Q3", "a": 2.5, "n": "2026-11-30 08:00:00"}),
    ]
    assert said == []


def test_a_bad_row_is_its_own_fault():
    found, _ = rows_and_lines(
        saved(rows=[["q", None, "a"], ["Q", None, "#N/A"], ["Q", "x"], ["Q", None, None, None, 1], ["Q"]])
    )
    assert [f.fault for f in found] == [
        "a is #N/A, an error of the spreadsheet",
        "has a value in column 2, which the first row does not name",
        "has a value in column 5, which the first row does not name",
        None,
    ]
    assert found[-1].row == {"q": "Q", "a": None}


def test_the_sheet_that_is_read():
    file = saved(cover=[], one=[["q"], ["1"]], two=[["q"], ["2"]])
    found, said = rows_and_lines(file)
    assert ([f.row for f in found], said) == ([{"q": "1"}], ['book.xlsx: of 2 sheets "one" is read (data.sheet=one)'])
    assert rows_and_lines(file, "two")[0][0].row == {"q": "2"}
    with pytest.raises(UserError, match='has no sheet "three"; there is "cover", "one", "two"'):
        rows_and_lines(file, "three")
    with pytest.raises(UserError, match="the file is empty"):
        rows_and_lines(file, "cover")
    with pytest.raises(UserError, match=r'book\.xlsx:1: the first row must name the fields, each once, got "q" twice'):
        rows_and_lines(saved(one=[["q", "q"], ["1", "2"]]))


def test_a_hostile_file_is_one_error():
    sheet = "xl/worksheets/sheet1.xml"
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><worksheet'
    for change, message in (
        (lambda text: text.replace("<worksheet", laughs, 1), "ValueError: Unable to read workbook"),
        (lambda text: text[:-40], "ParseError"),
        (lambda text: text.replace('t="n"><v>1', 't="s"><v>99'), "IndexError"),
    ):
        with pytest.raises(UserError, match=rf"book\.xlsx: cannot be read: {message}"):
            rows_and_lines(with_part(saved(rows=[["q"], [1]]), sheet, change))
    far = with_part(saved(rows=[["q"], [1]]), sheet, lambda text: text.replace('r="2"', 'r="2000000000"'))
    assert rows_and_lines(far)[0] == []  # no row beyond the last one of a spreadsheet
    for content, message in (
        (bomb(), r"would unpack to 2,147,483,\d+ bytes, \d+ times its size; save it as CSV"),
        (b"\xd0\xcf\x11\xe0" + b"\0" * 600, r"has a password, or is an old \.xls file"),
    ):
        Path("book.xlsx").write_bytes(content)
        with pytest.raises(UserError, match=message):
            rows_and_lines(Path("book.xlsx"))


def test_without_openpyxl_its_package_is_named(monkeypatch):
    file = saved(rows=[["q"], [1]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError, match=r"needs openpyxl: pip install 'llmft\[xlsx\]', or save it as CSV"):
        rows_and_lines(file)
