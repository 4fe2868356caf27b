"""Raw row -> example for each kind of row that llmft reads; no data set class, so that files can be recognized without torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmft.data.messages import as_list, turns_of
from llmft.data.records import Example, Row, RowError, Turn, checked_text, shown, text_of, value_of
from llmft.data.row_fields import chat_example, history_of, keywords_of, optional_text, row_weight

SUPPORT_KEYS = ("intent", "product", "urgency")
# Columns that a chat row has under their own names, unless data.columns says otherwise.
OPTIONAL = ("system", "tools", "weight")


def alpaca_example(row: Row) -> Example:
    """``instruction`` with ``input`` as one user turn, ``output``; ``system``, ``history`` and ``weight`` where there."""
    turn = instruction_turn(row, "instruction", "input")
    example = Example((*history_of(row), turn), text_of(row, "output"), weight=row_weight(row))
    system = optional_text(row, "system")
    return example.with_system(system if system.strip() else None)


def openorca_example(row: Row) -> Example:
    """``system_prompt`` (may be empty) and ``question`` in, ``response`` out."""
    system = text_of(row, "system_prompt", blank=True)
    turns = (Turn("user", text_of(row, "question")),)
    if system.strip():
        turns = (Turn("system", system), *turns)
    return Example(turns, text_of(row, "response"), id=text_of(row, "id"))


def psychology_example(row: Row) -> Example:
    """``question`` and ``response_j``; ``response_k`` is the rejected answer and stays out of prompts and labels."""
    return Example((Turn("user", text_of(row, "question")),), text_of(row, "response_j"))


def keyword_example(row: Row) -> Example:
    """``question``, answered by its ``answer_keywords`` joined with ", "."""
    question = text_of(row, "question")
    return Example((Turn("user", question),), ", ".join(keywords_of(row, "answer_keywords")))


def support_example(row: Row) -> Example:
    """``message``, answered by a JSON object of its labels, in the order of ``SUPPORT_KEYS``."""
    labels = {key: text_of(row, key) for key in SUPPORT_KEYS}
    return Example((Turn("user", text_of(row, "message")),), json.dumps(labels, ensure_ascii=False))


def column_example(row: Row, columns: Mapping[str, str]) -> Example:
    """The example of a row whose fields are named by ``data.columns``.

    Args:
        row: The row.
        columns: Role -> field: ``messages`` (and ``output`` for an answer that is not among them), or ``instruction`` and
            ``output``, which may be a text, a turn or a list of turns.

    Raises:
        RowError: A field is invalid; names it.
    """
    example = _chat(row, columns) if "messages" in columns else _flat(row, columns)
    return replace(example, id=_id(row, columns))


def instruction_turn(row: Row, instruction: str, given: str | None) -> Turn:
    """The user turn of an instruction and its input (may be missing); the input alone if the instruction is empty."""
    asked = value_of(row, instruction)
    text = "" if given is None else optional_text(row, given)
    if text.strip() and (asked is None or (isinstance(asked, str) and not asked.strip())):
        return Turn("user", text)
    return Turn("user", text_of(row, instruction), text if text.strip() else "")


def _chat(row: Row, columns: Mapping[str, str]) -> Example:
    messages = columns["messages"]
    named = {role: columns.get(role, role) for role in OPTIONAL}
    if "output" in columns:
        before = as_list(value_of(row, messages))
        if not isinstance(before, list):
            raise RowError(messages, f"must be a list of turns, got {shown(before)}")
        row = _with(row, messages, [*before, *_answer_turns(value_of(row, columns["output"]))])
    return chat_example(row, messages, **named)


def _flat(row: Row, columns: Mapping[str, str]) -> Example:
    answer = value_of(row, columns["output"])
    turn = instruction_turn(row, columns["instruction"], columns.get("input"))
    if isinstance(answer, Mapping | list):
        return _answered_by_turns(turn, answer, columns["output"]).with_system(_optional(row, columns, "system"))
    example = Example(
        (*(history_of(row, columns["history"]) if "history" in columns else ()), turn),
        text_of(row, columns["output"]),
        reasoning=_optional(row, columns, "reasoning"),
        weight=row_weight(row, columns["weight"]) if "weight" in columns else 1.0,
    )
    return example.with_system(_optional(row, columns, "system"))


def _answered_by_turns(question: Turn, answer: object, field: str) -> Example:
    """An answer of one turn or several; where these are the whole conversation, the question is among them."""
    turns = _answer_turns(answer)
    first = turns[0] if turns else None
    role = first.get("role", first.get("from")) if isinstance(first, Mapping) else None
    whole = turns if role in ("user", "human", "system") else [{"role": "user", "content": question.content}, *turns]
    return Example.from_turns(turns_of(whole, field))


def _answer_turns(answer: object) -> list[Any]:
    answer = as_list(answer)
    if isinstance(answer, str):
        return [{"role": "assistant", "content": answer}]
    return list(answer) if isinstance(answer, Sequence) else [answer]


def _with(row: Row, field: str, value: object) -> Row:
    """The row with another value in a field; the same object, if it remembers which of its fields were read."""
    if type(row) is dict or not isinstance(row, dict):
        return {**row, field: value}
    row[field] = value
    return row


def _id(row: Row, columns: Mapping[str, str]) -> str:
    value = value_of(row, columns["id"]) if "id" in columns else ""
    return checked_text(str(value), columns.get("id", "id"), blank=True)


def _optional(row: Row, columns: Mapping[str, str], role: str) -> str | None:
    """The text of a column that may be missing, null or empty; None if it is."""
    text = optional_text(row, columns[role]) if role in columns else ""
    return text if text.strip() else None
