"""A file, standard input or the built-in samples -> questions."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmft.data.messages import standard_role, turns_of
from llmft.data.records import Example, RowError, Turn, shown, text_of
from llmft.data.sources import SAMPLES, lines_of, read_file
from llmft.data.tool_calls import tool_texts
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt")
STANDARD_INPUT = "-"


def sample_questions(own: Sequence[Any] = ()) -> list[Example]:
    """The sample questions of a data set (``data.questions``); five general ones if it has none."""
    rows = own or json.loads((SAMPLES / "questions.json").read_text(encoding="utf-8"))
    return [to_question(row, f"samples:{number}") for number, row in enumerate(rows, start=1)]


def read_questions(given: str, kind: str) -> list[Example]:
    """The questions of a file, in the format of its suffix, or of standard input (``-``) in the format ``kind``.

    Raises:
        UserError: The file does not exist, has no question, or has invalid rows, which are named.
    """
    if given != STANDARD_INPUT:
        file = user_path(given)
        if not file.is_file() or file.suffix not in ENDINGS:
            raise UserError(f"input={given}: must be an existing {', '.join(ENDINGS)} file, or - for standard input")
        found = list(_questions(given, file))
    else:
        with tempfile.TemporaryDirectory() as folder:  # the readers need a file
            file = Path(folder) / f"input.{kind}"
            file.write_bytes(sys.stdin.buffer.read())
            found = list(_questions("standard input", file))
    if not found:
        raise UserError(f"input={given}: has no question")
    return found


def to_question(row: Any, place: str) -> Example:
    """The question of a row: ``messages``, or ``question`` (or ``instruction``) with optional ``input``, ``system``, ``id``.

    An assistant turn at the end of ``messages`` is the reference answer; it is not part of the prompt.

    Raises:
        RowError: The row has no question.
    """
    number = place.rpartition(":")[2]
    if isinstance(row, Mapping) and "messages" in row:
        tools = tool_texts(row.get("tools"), "tools")
        example = Example(_context(row["messages"]), "", _id(row, number), place, tools=tools)
    else:
        name = "instruction" if isinstance(row, Mapping) and "instruction" in row else "question"
        material = text_of(row, "input", blank=True) if isinstance(row, Mapping) and row.get("input") else ""
        turn = Turn("user", text_of(row, name), material if material.strip() else "")
        example = Example((turn,), "", _id(row, number), place)
    system = next((name for name in ("system", "system_prompt") if row.get(name)), None)
    return example.with_system(text_of(row, system, blank=True).strip() and row[system] if system else None)


def _context(messages: Any) -> tuple[Turn, ...]:
    if isinstance(messages, list) and messages and isinstance(messages[-1], Mapping):
        if standard_role(messages[-1].get("role", messages[-1].get("from"))) == "assistant":
            messages = messages[:-1]
        # turns_of checks complete rows, so an answer is added and removed again
        return turns_of([*messages, {"role": "assistant", "content": "?"}])[:-1]
    raise RowError("messages", f"must be a list of turns that ends in a user turn, got {shown(messages)}")


def _id(row: Mapping[str, Any], number: str) -> str:
    return str(row["id"]) if row.get("id") not in (None, "") else number


def _questions(given: str, file: Path) -> Iterator[Example]:
    if file.suffix == ".txt":
        for number, line in lines_of(given, file):
            if line.strip():
                yield Example((Turn("user", line.strip()),), "", str(number), f"{given}:{number}")
        return
    faults = []
    for located in read_file(given, file):
        try:
            if located.fault:
                raise RowError("row", located.fault)
            yield to_question(located.row, located.place)
        except RowError as error:
            faults.append(f"{located.place}: {error}")
    if faults:
        raise UserError.from_faults(f"input={given}", faults)
