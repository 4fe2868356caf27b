"""Read rows from JSON Lines, and from a JSON list of rows or object of columns."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmft.data.records import shown
from llmft.data.sources.decompress import MAX_LINE, UTF16, ParsedRow, byte_lines, not_utf8, opened
from llmft.utils.errors import UserError

WHITESPACE = re.compile(r"[ \t\r\n]*")
CHUNK = 2**20


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without duplicate keys: Python would silently keep the last value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {shown(next(name for name in names if names.count(name) > 1))} is there twice")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_jsonl(given: str, file: Path) -> Iterator[ParsedRow]:
    """Yield one row per line; blank lines are skipped, invalid ones have a ``fault``."""
    empty = True
    with opened(file) as stream:
        # by newline only: splitlines() would also split at U+2028 inside a string
        for number, raw in byte_lines(given, stream):
            if raw is not None and not raw.strip():
                continue
            empty = False
            yield _line(f"{given}:{number}", raw)
    if empty:
        raise EmptyFileError(given)


class EmptyFileError(UserError):
    """An empty file."""

    def __init__(self, given: str) -> None:
        super().__init__(f"{given}:1: the file is empty")


def _line(place: str, raw: bytes | None) -> ParsedRow:
    if raw is None:
        return ParsedRow(place, None, f"the line is longer than {MAX_LINE // 2**20} MiB")
    try:
        return ParsedRow(place, DECODER.decode(raw.decode("utf-8")))
    except UnicodeDecodeError as error:
        return ParsedRow(place, None, not_utf8(raw, error))
    except ValueError as error:
        return ParsedRow(place, None, f"broken JSON: {getattr(error, 'msg', error)}")
    except RecursionError:
        return ParsedRow(place, None, "broken JSON: nested too deep")


class _Window:
    """A sliding window over a text file, for parsing a JSON file of any size value by value."""

    def __init__(self, given: str, stream: Any) -> None:
        self.given, self.stream = given, stream
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def more(self) -> bool:
        """Read more (as much again as the window has); False at the end of the file."""
        if self.ended:
            return False
        data = self.stream.read(max(CHUNK, len(self.text) - self.at))
        self.line += self.text.count("\n", 0, self.at)
        first = not self.text and self.line == 1 and self.at == 0
        self.text, self.at = self.text[self.at :], 0
        if first:
            if data.startswith(UTF16):
                raise UserError(f"{self.given}:1: not UTF-8 but UTF-16; save the file as UTF-8")
            data = data.removeprefix(codecs.BOM_UTF8)
        self.ended = not data
        try:
            self.text += self.decoder.decode(data, final=self.ended)
        except UnicodeDecodeError as error:
            line = self.line + self.text.count("\n") + error.object.count(b"\n", 0, error.start)
            raise UserError(f"{self.given}:{line}: {not_utf8(error.object, error)}") from None
        return True

    def next(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            match = WHITESPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self) -> Any:
        """Parse the JSON value at the position.

        Raises:
            UserError: It is invalid; nothing after it can be read.
        """
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except (ValueError, RecursionError) as error:
                if not self.more():
                    raise self.broken(error) from None
                continue
            if end < len(self.text) or not self.more():  # a number at the end of the window may continue
                self.at = end
                return value

    def broken(self, error: Exception | str) -> UserError:
        """The error for invalid JSON, with its line."""
        at = getattr(error, "pos", self.at)
        what = "nested too deep" if isinstance(error, RecursionError) else getattr(error, "msg", error)
        line = self.line + self.text.count("\n", 0, at)
        return UserError(f"{self.given}:{line}: broken JSON: {what}; no row behind it can be read")


def read_json(given: str, file: Path) -> Iterator[ParsedRow]:
    """Yield the rows of a list, each with the line where it begins; or of an object of lists, by number.

    Raises:
        UserError: The file is invalid, empty, or has another content.
    """
    with opened(file) as stream:
        window = _Window(given, stream)
        first = window.next()
        if not first:
            raise EmptyFileError(given)
        if first == "{":
            yield from _columns(given, window)
            return
        if first != "[":
            start = shown(window.text[window.at : window.at + 40])
            raise UserError(f"{given}:1: a .json file must hold a list of rows, or an object of lists, got {start}")
        window.at += 1
        yield from _list(window)


def _list(window: _Window) -> Iterator[ParsedRow]:
    if window.next() == "]":
        window.at += 1
    else:
        while True:
            line, counted = window.line, window.at
            line += window.text.count("\n", 0, counted)
            yield ParsedRow(f"{window.given}:{line}", window.value())
            after = window.next()
            if after not in (",", "]") or not after:
                raise window.broken("expected ',' between rows or ']' at the end")
            window.at += 1
            if after == "]":
                break
            if window.next() in ("", "]"):
                raise window.broken("expected a row after ','")
    if window.next():
        raise window.broken("expected nothing behind the list")


def _only_rows(columns: dict[str, Any]) -> list[Any]:
    """The rows of an object such as ``{"version": "1", "data": [{...}, ...]}``: its only list, of objects; else none."""
    lists = [value for value in columns.values() if isinstance(value, list)]
    return lists[0] if len(lists) == 1 and lists[0] and all(isinstance(row, dict) for row in lists[0]) else []


def _columns(given: str, window: _Window) -> Iterator[ParsedRow]:
    columns = window.value()
    if window.next() == "{":
        raise UserError(f"{given}: holds one object after the other, which are JSON lines; name the file .jsonl")
    if window.next():
        raise window.broken("expected nothing behind the object")
    if rows := _only_rows(columns):
        yield from (ParsedRow(f"{given}:{number}", row) for number, row in enumerate(rows, start=1))
        return
    if not columns or not all(isinstance(column, list) for column in columns.values()):
        raise UserError(
            f"{given}:1: a .json file must hold a list of rows, or an object of lists (one per field), got {shown(columns)}"
        )
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"{given}:1: the lists of the object must be of one length, got {shown(sizes, 200)}")
    for number, values in enumerate(zip(*columns.values(), strict=True), start=1):
        yield ParsedRow(f"{given}:{number}", dict(zip(columns, values, strict=True)))
