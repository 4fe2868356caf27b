"""Answers -> a file that can be gone on with: JSON lines or CSV (or plain text), written as the answers come."""

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


def key_of(*what: Any) -> str:
    """What an answer is an answer to (model, settings, question), in 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


class AnswerFile:
    """The file that ``output`` names.

    Each row ends in ``key``, which says what it is an answer to: a row with the right key is finished and not asked again.

    Args:
        output: As the user wrote it; its ending says how it is written.
        columns: The names of the fields, ``key`` last.
    """

    def __init__(self, output: str, columns: Sequence[str]) -> None:
        self.output, self.file, self.columns = output, user_path(output), list(columns)
        self.kind = self.file.suffix

    def finished(self, keys: Sequence[str]) -> int:
        """How many of the questions with these keys are answered already; half a row at the end is cut off.

        Raises:
            UserError: The file holds something else than answers to the first of these questions.
        """
        if not self.file.exists():
            return 0
        if self.kind == ".txt":
            raise UserError(f"output={self.output}: is there already, and text cannot be gone on with; choose another")
        rows = self._rows()
        if rows and not KEY.fullmatch(rows[-1].get("key") or ""):
            rows.pop()  # of a process that was killed in the middle of it
        wrong = next((n for n, row in enumerate(rows) if n >= len(keys) or row.get("key") != keys[n]), None)
        if wrong is not None or (not rows and self.file.stat().st_size > 0 and not self._torn()):
            raise UserError(
                f"output={self.output}: row {(wrong or 0) + 1} is no answer of this model, so set, to that question;"
                " choose another output or remove it"
            )
        with atomic_open(self.file, newline="") as out:
            out.write(self._text(rows, first=True))
        return len(rows)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows behind the others, at once."""
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
        """The rows as they stand there, the last one perhaps cut short."""
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
        """Whether all that is there is the beginning of a file of ours."""
        start = f"{','.join(self.columns)}\r\n" if self.kind == ".csv" else '{"id": '
        text = self.file.read_bytes().decode("utf-8", errors="replace")
        return text.startswith(start) or start.startswith(text)


def as_text(row: Mapping[str, Any], *, several: bool) -> str:
    """An answer for people: alone, under its question where there are several, beside the base model's where that was asked."""
    question = f"{row['question']}\n" if several else ""
    if "base_answer" not in row:
        return question + row["answer"]
    return f"{question}base:  {row['base_answer']}\ntuned: {row['answer']}"


def check_output(output: str | None) -> None:
    """Find out before any work that a file cannot be written.

    Raises:
        UserError: It is a folder, or in none that there is.
    """
    if output is None:
        return
    file = user_path(output)
    if file.is_dir() or not file.parent.is_dir():
        why = "is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise UserError(f"output={output}: {why}")
