"""One row of a file by its place, as the training numbers rows."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmft.referee.files import SEVERAL, read_row

ROWS = [{"q": 'a\u2028b, "c"\nd'}, {"q": "e"}, {"q": "f"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content", "number"),
    [
        ("rows.jsonl", "{broken\n" + LINES, 4),
        ("rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0), 3),
        ("rows.json", json.dumps(ROWS, indent=1), 8),
        ("rows.json", json.dumps({"q": [row["q"] for row in ROWS]}), 3),
        ("rows.csv", 'q\n"a\u2028b, ""c""\nd"\ne\nf\n', 5),
        ("rows.tsv", "q\tr\ne\u2028\t1\n\nx\t2\nf\t3\n", 5),
    ],
)
def test_the_last_row(tmp_path: Path, name, content, number):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_row({"given": file}, f"given:{number}")["q"] == "f"


def test_parquet_and_places_without_a_row(tmp_path: Path):
    pq.write_table(pa.table({"q": ["e", "f"]}), tmp_path / "rows.parquet")
    files = {"given": tmp_path / "rows.parquet"}
    assert read_row(files, "given:2") == {"q": "f"}
    assert read_row(files, "given:3") is None
    assert read_row(files, "other:1") is None


def test_rows_that_share_a_line_are_not_told_apart(tmp_path: Path):
    (tmp_path / "rows.json").write_text('[{"q": "e"}, {"q": "f"},\n{"q": "g"}]')
    files = {"given": tmp_path / "rows.json"}
    assert read_row(files, "given:1") is SEVERAL
    assert read_row(files, "given:2") == {"q": "g"}
