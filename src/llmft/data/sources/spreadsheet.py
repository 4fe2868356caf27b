"""Read rows from a sheet of an .xlsx file, each with the number that the spreadsheet shows; a formula is its last value."""

import datetime
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from llmft.data.records import shown
from llmft.data.sources.decompress import ParsedRow
from llmft.data.sources.file_format import FileFormat
from llmft.data.sources.json import EmptyFileError
from llmft.utils.errors import UserError
from llmft.utils.text import first_line

# Unpacked bytes of a file that is not refused, and how many times its packed bytes (from 64 MiB on) they may be.
MAX_UNPACKED, MAX_RATIO, SMALL = 2**31, 200, 2**26
MAX_ROWS = 2**20  # of a sheet; a damaged file may name any
BEYOND = 64  # columns behind the header in which a value is looked for
ERRORS = ("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#SPILL!", "#CALC!")


def read_xlsx(given: str, file: Path, layout: FileFormat) -> Iterator[ParsedRow]:
    """Yield the rows of a sheet (``data.sheet``, or the first one with rows) below its first row, which names the fields.

    Text, numbers and booleans stay what they are; dates and times become text (ISO 8601); empty rows are skipped.

    Raises:
        UserError: openpyxl is not installed, the file is no spreadsheet or too large, has no such sheet, or names no fields.
    """
    _check_size(given, file)
    with _opened(given, file) as book:
        sheet = _sheet(given, book, layout)
        top, header = next(_filled(sheet), (0, ()))
        if not top:
            raise EmptyFileError(given)
        names = _names(given, top, header)
        for number, cells in _filled(sheet, top + 1, len(names) + BEYOND):
            yield _row(f"{given}:{number}", names, cells)


def _check_size(given: str, file: Path) -> None:
    """Refuse what is no zip archive, and what would unpack to very much."""
    try:
        with zipfile.ZipFile(file) as packed:
            size = sum(info.file_size for info in packed.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        with file.open("rb") as stream:
            old = stream.read(4) == b"\xd0\xcf\x11\xe0"
        why = "it has a password, or is an old .xls file; save it as .xlsx without one" if old else first_line(error)
        raise UserError(f"{given}: cannot be read: {why}") from None
    if size > MAX_UNPACKED or (size > SMALL and size > MAX_RATIO * file.stat().st_size):
        raise UserError(
            f"{given}: would unpack to {size:,} bytes, {size // file.stat().st_size} times its size; save it as CSV"
        )


@contextmanager
def _opened(given: str, file: Path) -> Iterator[Any]:
    try:
        import defusedxml  # noqa: F401 (openpyxl uses it where it is installed)
        import openpyxl  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{given}: reading .xlsx files needs openpyxl: pip install 'llmft[xlsx]', or save it as CSV"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is not read: charts, formats, extensions
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
            try:
                yield book
            finally:
                book.close()
        except UserError:
            raise
        except Exception as error:  # the parser raises whatever a damaged part leads to
            raise UserError(f"{given}: cannot be read: {type(error).__name__}: {first_line(error)}") from None


def _sheet(given: str, book: Any, layout: FileFormat) -> Any:
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    for sheet in sheets.values():
        sheet.reset_dimensions()  # they may be wrong
    if layout.sheet is not None:
        if layout.sheet not in sheets:
            raise UserError(f"{given}: has no sheet {shown(layout.sheet)}; there is {', '.join(map(shown, sheets))}")
        return sheets[layout.sheet]
    ordered = sorted(sheets.values(), key=lambda sheet: sheet.sheet_state != "visible")  # hidden ones last
    filled = [sheet for sheet in ordered if any(_filled(sheet))]
    if not filled:
        raise EmptyFileError(given)
    if len(filled) > 1:
        title = filled[0].title
        layout.told(f"{given}: of {len(filled)} sheets {shown(title)} is read", "sheet", title)
    return filled[0]


def _filled(sheet: Any, start: int = 1, width: int | None = None) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The rows that are not empty, with their numbers."""
    rows = sheet.iter_rows(min_row=start, max_row=MAX_ROWS, max_col=width, values_only=True)
    for number, cells in enumerate(islice(rows, MAX_ROWS), start=start):
        if any(cell is not None and cell != "" for cell in cells):
            yield number, tuple(cells)


def _names(given: str, top: int, header: Sequence[Any]) -> list[str]:
    names = ["" if cell is None else str(_value(cell)) for cell in header]
    while names and not names[-1]:
        names.pop()
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise UserError(f"{given}:{top}: the first row must name the fields, each once, got {shown(twice[0])} twice")
    return names


def _row(place: str, names: Sequence[str], cells: Sequence[Any]) -> ParsedRow:
    row = {}
    for number, cell in enumerate(cells):
        name = names[number] if number < len(names) else ""
        if not name and cell not in (None, ""):
            return ParsedRow(place, None, f"has a value in column {number + 1}, which the first row does not name")
        if isinstance(cell, str) and cell in ERRORS:
            return ParsedRow(place, None, f"{name} is {cell}, an error of the spreadsheet")
        if name:
            row[name] = _value(cell)
    return ParsedRow(place, {name: row.get(name) for name in names if name})


def _value(cell: Any) -> Any:
    """A cell as a value of JSON: dates and times as text."""
    if isinstance(cell, datetime.datetime):
        return cell.date().isoformat() if cell.time() == datetime.time() else cell.isoformat(" ")
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, datetime.timedelta):
        return str(cell)
    return cell.replace("_x000D_", "\r") if isinstance(cell, str) else cell
