"""Awkward files, made where they are needed: each with the rows that are in it, or None where there is one clear error."""

import gzip
import io
import json
import zipfile

import pyarrow
import pyarrow.parquet

from tests.conftest import chat_row

GOOD = json.dumps(chat_row("Q?", "A."))


def lines(*rows: str | bytes) -> bytes:
    return b"\n".join(row.encode("utf-8", "surrogatepass") if isinstance(row, str) else row for row in rows)


def answered(text: str) -> str:
    return '{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": ' + text + "}]}"


def parquet(rows: list[dict]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


def bomb() -> bytes:
    """A spreadsheet that says it would unpack to more than 2 GiB."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/workbook.xml", "x" * 100)
        packed.infolist()[0].file_size = 2**31 - 1
        packed.writestr("xl/sharedStrings.xml", "x" * 100)
    return stream.getvalue()


DEEP = "[" * 50_000
# name: (content, good rows, bad rows); None in place of numbers: an error about the whole file
FILES: dict[str, tuple[bytes, tuple[int, int] | None]] = {
    "line_separators.jsonl": (
        lines(answered('"a\u2028b\u2029c\u0085d\x0c\x1c"'.replace("\x0c\x1c", "\\f\\u001c")), GOOD),
        (2, 0),
    ),
    "nul_in_text.jsonl": (lines(answered('"a\\u0000b"'), GOOD), (2, 0)),
    "nul_bytes.jsonl": (lines(GOOD, b"\0\0\0", GOOD), (2, 1)),
    "lone_surrogate_escaped.jsonl": (lines(answered('"\\ud800"'), GOOD), (1, 1)),
    "lone_surrogate_raw.jsonl": (lines(answered('"\ud800"'), GOOD), (1, 1)),
    "surrogate_in_a_key.jsonl": (lines('{"\\udfff": 1}', GOOD), (1, 1)),
    "ten_megabytes.jsonl": (lines(answered(json.dumps("x" * 10_000_000)), GOOD), (2, 0)),
    "deep.jsonl": (lines(DEEP, '{"messages": ' * 50_000, GOOD), (1, 2)),
    "nan.jsonl": (lines(answered("NaN"), answered("-Infinity"), answered("1e999"), answered("9" * 6000), GOOD), (1, 4)),
    "keys_twice.jsonl": (lines('{"messages": 1, "messages": 2}', GOOD), (1, 1)),
    "utf16.jsonl": (f"{GOOD}\n".encode("utf-16"), (1, 0)),
    "utf16_without_mark.jsonl": (f"{GOOD}\n".encode("utf-16-le"), (1, 0)),
    "utf16_of_half_pairs.jsonl": (f"{GOOD}\n{GOOD[:-5]}\ud800{GOOD[-5:]}\n".encode("utf-16", "surrogatepass"), (1, 1)),
    "utf16_cut.csv": ("messages,b\nx,1\n".encode("utf-16")[:-1], (0, 1)),
    "utf16_mark_alone.csv": (b"\xff\xfe", None),
    "latin1.jsonl": (lines(answered('"caf\u00e9"').encode("latin-1"), GOOD), (1, 1)),
    "empty.jsonl": (b"", None),
    "blank.jsonl": (b"\n \r\n\t\n", None),
    "no_rows.json": (b"[]", (0, 0)),
    "deep.json": (DEEP.encode(), None),
    "cut.json": (f"[{GOOD}, {GOOD}".encode(), None),
    "two_lists.json": (f"[{GOOD}] [{GOOD}]".encode(), None),
    "one_row.json": (b'{"messages": "x"}', None),
    "lists_of_other_lengths.json": (b'{"messages": [1], "b": [1, 2]}', None),
    "cut.jsonl.gz": (gzip.compress(lines(*[GOOD] * 50))[:-9], None),
    "not.jsonl.gz": (GOOD.encode(), None),
    "not.jsonl.zst": (GOOD.encode(), None),
    "crc.jsonl.gz": (gzip.compress(GOOD.encode())[:-8] + b"\0" * 8, None),
    "quotes.csv": (b'messages,b\r\n"say ""x""\r\n\ry",1\r\n', (0, 1)),
    "open_quote.csv": (b'messages,b\n"x,1\nx,2\n', None),
    "old_mac.csv": (b"messages,b\rx,1\rx,2\r", None),
    "not.parquet": (b"PAR1 and no more PAR1", None),
    "other_fields.parquet": (parquet([{"a": 1}, {"a": 2}]), (0, 2)),
    "nulls.parquet": (parquet([{"messages": None}, {"messages": [{"role": "user", "content": None}]}]), (0, 2)),
    "not.xlsx": (b"PK\x03\x04 and no more", None),
    "bomb.xlsx": (bomb(), None),
    "good.parquet": (parquet([chat_row("Q", "A")] * 3), (3, 0)),
}
