"""A file or a Hub data set -> rows, each with its place (``<file as given>:<1-based line>``)."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmft.config import user_path
from llmft.errors import UserError
from llmft.records import shown

SAMPLES = Path(__file__).parent / "samples"
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
WHITESPACE = re.compile(r"[ \t\r\n]*")


class Located(NamedTuple):
    """A parsed row, or what kept it from being parsed (``fault``), and where it stands."""

    place: str
    row: Any
    fault: str | None = None


class Source(NamedTuple):
    """Where rows come from: ``given`` as the user wrote it, ``file`` if it is one, and its digest."""

    given: str
    file: Path | None
    sha256: str | None


def find(path: str, name: str) -> Source:
    """What ``data.path`` means: ``sample``, a local file, or a Hub data set id.

    Args:
        path: The value of ``data.path``.
        name: The data set's name, which names its shipped sample.

    Raises:
        UserError: No such file or sample, a folder, or a file of an unknown kind.
    """
    if path == "sample":
        found = sorted(SAMPLES.glob(f"{name}.json*"))
        if not found:
            raise UserError(f"data.path=sample: no sample is shipped for data={name}; pass data.path=FILE")
        return Source(f"sample:{found[0].name}", found[0], digest(found[0]))
    file = user_path(path)
    if file.is_file():
        if file.suffix not in (".json", ".jsonl"):
            raise UserError(f"data.path={path}: a file must end in .jsonl or .json, got {file.suffix or 'no ending'!r}")
        return Source(path, file, digest(file))
    if file.is_dir():
        raise UserError(f"data.path={path}: is a folder; pass one .jsonl or .json file")
    if HUB_ID.match(path) and file.suffix not in (".json", ".jsonl"):
        return Source(path, None, None)
    raise UserError(
        f"data.path={path}: no such file (looked in {Path.cwd()}); or data.path=sample for the shipped rows"
    )


def read(source: Source) -> Iterator[Located]:
    """The rows of a source in order; a row that cannot be parsed comes with its fault.

    Raises:
        UserError: The source as a whole cannot be read: not UTF-8, no list, empty, Hub out of reach.
    """
    if source.file is None:
        yield from _read_hub(source.given)
        return
    text = decode(source)
    if not text.strip():
        raise UserError(f"{source.given}:1: the file is empty")
    yield from (_read_jsonl if source.file.suffix == ".jsonl" else _read_json)(source.given, text)


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def decode(source: Source) -> str:
    """The text of a source that is a file.

    Raises:
        UserError: It is not UTF-8.
    """
    assert source.file is not None
    data = source.file.read_bytes()
    try:
        return data.decode("utf-8-sig")  # a BOM, as Windows editors write it, is no character of the first row
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        bad = f"0x{data[error.start]:02x}"
        raise UserError(f"{source.given}:{line}: not UTF-8 (byte {bad}); save the file as UTF-8") from None


def _read_jsonl(given: str, text: str) -> Iterator[Located]:
    # by "\n" alone: splitlines() would also cut at U+2028 inside a string
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield Located(f"{given}:{number}", json.loads(line))
        except ValueError as error:
            yield Located(f"{given}:{number}", None, f"broken JSON: {getattr(error, 'msg', error)}")
        except RecursionError:
            yield Located(f"{given}:{number}", None, "broken JSON: nested too deep")


def _read_json(given: str, text: str) -> Iterator[Located]:
    decoder, end = json.JSONDecoder(), len(text)
    line, counted = 1, 0

    def skip(position: int) -> int:
        match = WHITESPACE.match(text, position)
        return match.end() if match else position

    position = skip(0)
    if text[position] != "[":
        raise UserError(
            f"{given}:1: a .json file must hold a list of rows, got {shown(text[position : position + 40])}"
        )
    position = skip(position + 1)
    while position < end and text[position] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            row, after = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            at = line + text.count("\n", counted, getattr(error, "pos", position))
            yield Located(f"{given}:{at}", None, f"broken JSON: {getattr(error, 'msg', error)}")
            return
        yield Located(f"{given}:{line}", row)
        position = skip(after)
        if position < end and text[position] == ",":
            position = skip(position + 1)
        elif position >= end or text[position] != "]":
            break
    if position >= end or text[position] != "]" or skip(position + 1) < end:
        at = text.count("\n", 0, position) + 1
        yield Located(f"{given}:{at}", None, "broken JSON: expected ',' between rows or ']' at the end")


def _read_hub(given: str) -> Iterator[Located]:
    import datasets

    try:
        rows = datasets.load_dataset(given, split="train")
    except Exception as error:  # offline, missing, gated and malformed all arrive as different types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"data.path={given}: no such local file, and the Hub did not give it ({reason}). "
            "Offline: download the rows elsewhere and pass data.path=FILE.jsonl, or use data.path=sample."
        ) from None
    for number, row in enumerate(rows, start=1):
        yield Located(f"{given}:{number}", row)
