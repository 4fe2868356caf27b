"""A resumable file of answers: JSON lines or CSV (or plain text, which cannot be resumed)."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmft.utils.csv import harmless
from llmft.utils.errors import UserError
from llmft.utils.files import atomic_open
from llmft.utils.paths import user_path
from llmft.utils.text import json_line, printable

ENDINGS = (".jsonl", ".csv", ".txt")
KEY = re.compile("[0-9a-f]{16}")


def key_of(*parts: Any) -> str:
    """A hash of model, settings and question, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


class AnswerFile:
    """The file at ``output``.

    Each row ends with ``key``, a hash of what it answers; a row with the expected key is kept when the file is resumed.

    Args:
        output: Path as the user wrote it; its suffix is the format.
        columns: Names of the fields, ``key`` last.
    """

    def __init__(self, output: str, columns: Sequence[str]) -> None:
        self.output, self.file, self.columns = output, user_path(output), list(columns)
        self.kind = self.file.suffix

    def finished(self, keys: Sequence[str]) -> int:
        """How many questions are already answered; a partial row at the end is removed.

        Args:
            keys: Expected keys, in order.

        Raises:
            UserError: The file contains anything but answers to the first of these questions.
        """
        if not self.file.exists():
            return 0
        if self.kind == ".txt":
            raise UserError(f"output={self.output}: exists, and a text file cannot be resumed; choose another")
        rows = self._rows()
        if rows and not KEY.fullmatch(rows[-1].get("key") or ""):
            rows.pop()  # partial: the process was killed while it was written
        wrong = next((n for n, row in enumerate(rows) if n >= len(keys) or row.get("key") != keys[n]), None)
        if wrong is not None or (not rows and self.file.stat().st_size > 0 and not self._torn()):
            raise UserError(
                f"output={self.output}: row {(wrong or 0) + 1} does not answer that question with this model and these settings;"
                " choose another output or remove it"
            )
        with atomic_open(self.file, newline="") as out:
            out.write(self._text(rows, first=True))
        return len(rows)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows."""
        first = not self.file.exists()
        safe = [{name: harmless(row[name]) for name in self.columns} for row in rows] if self.kind == ".csv" else rows
        with self.file.open("ab") as out:
            out.write(self._text(safe, first=first).encode())

    def _text(self, rows: Sequence[Mapping[str, Any]], *, first: bool) -> str:
        if self.kind == ".jsonl":
            return "".join(json_line(row) + "\n" for row in rows)
        if self.kind == ".txt":
            return "".join(printable(as_text(row, several=True)) + "\n\n" for row in rows)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        if first:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _rows(self) -> list[dict[str, Any]]:
        """The rows of the file; the last one may be partial."""
        text = self.file.read_bytes().decode("utf-8", errors="replace")
        if self.kind == ".csv":
            return list(csv.DictReader(io.StringIO(text, newline="")))
        found = []
        for line in text.split("\n"):
            try:
                row = json.loads(line) if line else None
            except ValueError:
                row = {}
            if row is not None:
                found.append(row if isinstance(row, dict) else {})
        return found

    def _torn(self) -> bool:
        """Whether the content is the start of a file of ours."""
        start = f"{','.join(self.columns)}\r\n" if self.kind == ".csv" else '{"id": '
        text = self.file.read_bytes().decode("utf-8", errors="replace")
        return text.startswith(start) or start.startswith(text)


def as_text(row: Mapping[str, Any], *, several: bool) -> str:
    """An answer as text: with its question if there are several, and with the base model's answer if it was generated."""
    question = f"{row['question']}\n" if several else ""
    if "base_answer" not in row:
        return question + row["answer"]
    return f"{question}base:  {row['base_answer']}\ntuned: {row['answer']}"


def check_output(output: str | None) -> None:
    """Check, before any work, that a file can be written.

    Raises:
        UserError: It is a folder, or its folder does not exist.
    """
    if output is None:
        return
    file = user_path(output)
    if file.is_dir() or not file.parent.is_dir():
        why = "is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise UserError(f"output={output}: {why}")
