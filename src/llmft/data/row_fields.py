"""Fields of a row besides its texts: system prompt, tools, history, weight, and whether it is to be trained at all."""

import ast
import re
from collections.abc import Sequence

from llmft.data.messages import SYSTEM, as_list, number_of, turns_of
from llmft.data.preprocessing.unread_fields import TrackedRow
from llmft.data.records import Example, NotTrainedError, Row, RowError, Turn, checked_text, shown, value_of
from llmft.data.tool_calls import tool_texts


def chat_example(
    row: Row, messages: str = "messages", *, system: str = "system", tools: str = "tools", weight: str = "weight"
) -> Example:
    """The example of a chat row: all turns but the last, and the last as the answer.

    Args:
        row: The row.
        messages: Its field with the turns.
        system: Its field with a system prompt; as all that follow, it may be missing or null.
        tools: Its field with the schemas of the tools.
        weight: Its field with the factor of the row in the loss.

    Raises:
        RowError: A field is invalid; names its place.
        NotTrainedError: The row says itself that it is not to be trained: weight 0, or ``label: false`` (KTO).
    """
    given = value_of(row, messages)
    if isinstance(row, TrackedRow) and isinstance(given, str):
        row[messages] = as_list(given)  # so that the keys of its turns are tracked too
        given = row[messages]
    turns = turns_of(given, messages)
    text = optional_text(row, system)
    if text.strip() and turns[0].role in SYSTEM and turns[0].content != text:
        raise RowError(system, f"differs from the system turn {messages}[0]: {shown(text)}")
    check_label(row)
    schemas = tool_texts(row.get(tools), tools)
    example = Example.from_turns(turns, tools=schemas, weight=row_weight(row, weight))
    return example.with_system(text if text.strip() else None)


def history_of(row: Row, field: str = "history") -> tuple[Turn, ...]:
    """The earlier turns of a row: a list of [question, answer] pairs, which may be missing or null.

    Raises:
        RowError: An entry is no pair of texts; names it.
    """
    history = row.get(field)
    if history is None:
        return ()
    if not isinstance(history, Sequence) or isinstance(history, str):
        raise RowError(field, f"must be a list of [question, answer] pairs, got {shown(history)}")
    turns = []
    for number, pair in enumerate(history):
        place = f"{field}[{number}]"
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise RowError(place, f"must be a [question, answer] pair, got {shown(pair)}")
        turns += [Turn(role, checked_text(t, place)) for role, t in zip(("user", "assistant"), pair, strict=True)]
    return tuple(turns)


def keywords_of(row: Row, field: str) -> list[str]:
    """A list of texts; in a cell of a table, the list as JSON or as Python writes it, or texts separated by commas.

    Raises:
        RowError: It is none, is empty, or an entry is no text.
    """
    value = value_of(row, field)
    keywords = _keywords_in(value) if isinstance(value, str) else value
    if not isinstance(keywords, list) or not keywords:
        raise RowError(field, f"must be a list of strings, got {shown(value)}")
    return [checked_text(keyword, f"{field}[{i}]") for i, keyword in enumerate(keywords)]


def _keywords_in(text: str) -> object:
    if not text.strip().startswith("["):
        return [part.strip() for part in re.split("[,;\n]", text) if part.strip()]
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def optional_text(row: Row, field: str) -> str:
    """The text of a field that may be missing, null or empty.

    Raises:
        RowError: It is not text.
    """
    value = row.get(field)
    return "" if value is None else checked_text(value, field, blank=True)


def row_weight(row: Row, field: str = "weight") -> float:
    """The factor of a row in the loss: 1 if the field is missing or null.

    Raises:
        RowError: It is no number of at least 0.
        NotTrainedError: It is 0.
    """
    weight = number_of(row.get(field), field)
    if not weight:
        raise NotTrainedError(field, "is 0, so that the row is not trained", "weight 0")
    return weight


def check_label(row: Row) -> None:
    """Leave out a row of a KTO set whose answer is labelled as undesirable; a label of another kind is not read.

    Raises:
        NotTrainedError: ``label`` is false.
    """
    label = dict.get(row, "label") if isinstance(row, dict) else row.get("label")
    if isinstance(label, bool) and not row["label"]:
        raise NotTrainedError("label", "is false: the answer is one that the model must not give", "label false")
