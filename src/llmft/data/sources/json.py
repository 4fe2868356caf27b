"""Read rows from JSON lines, and from a JSON list of rows, an object of columns or an object of splits."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmft.data.records import shown
from llmft.data.sources.decompress import MAX_LINE, ParsedRow, byte_lines
from llmft.data.sources.encoding import HEAD, Encoding, opened_text
from llmft.data.sources.file_format import FileFormat
from llmft.data.split_names import split_named
from llmft.utils.errors import UserError

LIST = re.compile(rb"\[\s*\{")
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


def read_jsonl(given: str, file: Path, layout: FileFormat) -> Iterator[ParsedRow]:
    """Yield one row per line; blank lines are skipped, invalid ones have a ``fault``."""
    empty = True
    with opened_text(given, file, layout) as (stream, encoding):
        if is_one_value(stream.peek(HEAD)[:HEAD]):
            layout.say(f"{given}: holds one JSON value, not JSON lines")
            yield from _rows(_Window(given, stream, encoding), layout)
            return
        # by newline only: splitlines() would also split at U+2028 inside a string
        for number, raw in byte_lines(stream):
            if raw is not None and not raw.strip():
                continue
            empty = False
            yield _line(f"{given}:{number}", raw, encoding)
    if empty:
        raise EmptyFileError(given)


def is_one_value(head: bytes) -> bool:
    """Whether a file of JSON lines begins as a JSON list of objects, or an object over several lines."""
    first, end, rest = head.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")
    of_lists = first.rstrip().endswith(b"]") and rest.strip()  # lines that are lists
    return (bool(end) and first.strip() == b"{") or bool(LIST.match(first + end + rest) and not of_lists)


class EmptyFileError(UserError):
    """An empty file."""

    def __init__(self, given: str) -> None:
        super().__init__(f"{given}:1: the file is empty")


def _line(place: str, raw: bytes | None, encoding: Encoding) -> ParsedRow:
    if raw is None:
        return ParsedRow(place, None, f"the line is longer than {MAX_LINE // 2**20} MiB")
    try:
        return ParsedRow(place, DECODER.decode(raw.decode("utf-8")))
    except UnicodeDecodeError:
        return ParsedRow(place, None, encoding.fault(encoding.decoded(raw)))
    except ValueError as error:
        return ParsedRow(place, None, f"broken JSON: {getattr(error, 'msg', error)}")
    except RecursionError:
        return ParsedRow(place, None, "broken JSON: nested too deep")


class _Window:
    """A sliding window over a text file, for parsing a JSON file of any size value by value."""

    def __init__(self, given: str, stream: Any, encoding: Encoding) -> None:
        self.given, self.stream, self.encoding = given, stream, encoding
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self.ended = "", 0, False
        self.line, self.counted = 1, 0  # the line number at the position ``counted``

    def more(self) -> bool:
        """Read more (as much again as the window has); False at the end of the file."""
        if self.ended:
            return False
        data = self.stream.read(max(CHUNK, len(self.text) - self.at))
        first = self.here() == 1 and not self.text and self.at == 0
        self.text, self.at, self.counted = self.text[self.at :], 0, 0
        if first:
            data = data.removeprefix(codecs.BOM_UTF8)
        self.ended = not data
        try:
            self.text += self.decoder.decode(data, final=self.ended)
        except UnicodeDecodeError as error:
            line = self.line + self.text.count("\n") + error.object.count(b"\n", 0, error.start)
            fault = self.encoding.fault(self.encoding.decoded(error.object[error.start :]))
            raise UserError(f"{self.given}:{line}: {fault}") from None
        return True

    def here(self) -> int:
        """The line number at the position."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

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
        line = self.here() + self.text.count("\n", self.at, at)
        return UserError(f"{self.given}:{line}: broken JSON: {what}; no row behind it can be read")


def read_json(given: str, file: Path, layout: FileFormat) -> Iterator[ParsedRow]:
    """Yield the rows of a list, or objects one after the other, each with the line where it begins; of an object, by number.

    Raises:
        UserError: The file is invalid, empty, or has another content.
    """
    with opened_text(given, file, layout) as (stream, encoding):
        yield from _rows(_Window(given, stream, encoding), layout)


def _rows(window: _Window, layout: FileFormat) -> Iterator[ParsedRow]:
    first = window.next()
    if not first:
        raise EmptyFileError(window.given)
    if first == "{":
        yield from _object_or_lines(window, layout)
        return
    if first != "[":
        start = shown(window.text[window.at : window.at + 40])
        raise UserError(f"{window.given}:1: a .json file must hold a list of rows, or an object of lists, got {start}")
    window.at += 1
    yield from _list(window)


def _list(window: _Window) -> Iterator[ParsedRow]:
    if window.next() == "]":
        window.at += 1
    else:
        while True:
            line = window.here()
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


def _splits(columns: dict[str, Any]) -> dict[str, list[Any]]:
    """The lists of an object such as ``{"train": [{...}], "valid": [{...}]}`` by their names; else none."""
    lists = {name: value for name, value in columns.items() if isinstance(value, list)}
    named = len(lists) > 1 and all(split_named(name) for name in lists)
    of_rows = all(isinstance(row, dict) for rows in lists.values() for row in rows)
    return lists if named and of_rows and any(lists.values()) else {}


def _object_or_lines(window: _Window, layout: FileFormat) -> Iterator[ParsedRow]:
    line, value = window.here(), window.value()
    if window.next() != "{":
        if window.next():
            raise window.broken("expected nothing behind the object")
        yield from _columns(window.given, value, layout)
        return
    layout.say(f"{window.given}: holds JSON lines")
    yield ParsedRow(f"{window.given}:{line}", value)
    while window.next():
        line = window.here()
        yield ParsedRow(f"{window.given}:{line}", window.value())


def _columns(given: str, columns: dict[str, Any], layout: FileFormat) -> Iterator[ParsedRow]:
    if splits := _splits(columns):
        layout.say(f"{given}: names its splits: {', '.join(f'{name} ({len(rows)})' for name, rows in splits.items())}")
        for name, rows in splits.items():
            for number, row in enumerate(rows, start=1):
                yield ParsedRow(f"{given}:{name}:{number}", row, split=split_named(name))
        return
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
