"""The format of a file whose name does not tell it, by its first bytes."""

import csv
from contextlib import suppress
from pathlib import Path

from llmft.data.sources.encoding import HEAD, unicode_encoding
from llmft.data.sources.tabular import DELIMITERS

SAMPLE = 2**16


def content_kind(file: Path) -> str | None:
    """The suffix of the format that a file holds: ``.json`` (also for JSON lines), ``.csv`` or ``.parquet``; None for others."""
    with file.open("rb") as stream:
        head = stream.read(SAMPLE)
    if head.startswith(b"PAR1"):
        return ".parquet"
    encoding = unicode_encoding(head[:HEAD])
    text = head.decode(encoding or "utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if encoding is None and "\0" in text:
        return None
    return ".json" if text[:1] in ("{", "[") else ".csv" if _is_table(text.splitlines(keepends=True)[:100]) else None


def _is_table(lines: list[str]) -> bool:
    """Whether some delimiter gives nearly all rows as many fields as the first line."""
    for delimiter in DELIMITERS:
        rows: list[list[str]] = []
        with suppress(csv.Error):
            rows += [row for row in csv.reader(lines, delimiter=delimiter) if row]
        if len(rows) > 1 and len(rows[0]) > 1 and 10 * sum(len(row) == len(rows[0]) for row in rows) >= 9 * len(rows):
            return True
    return False
