"""What is said of rows whose fields no data set knows: what they seem to be, and the options that may read them."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llmft.data.detect import Reading, fields_of, plain_text_field
from llmft.data.records import listed, shown
from llmft.data.sources.format_hint import ANSWER, QUESTION

# Words in the names of fields, besides those that are names by themselves.
ASKS = frozenset(QUESTION) - {"q", "source", "text"} | {"customer", "message", "request", "body", "human"}
REPLIES = frozenset(ANSWER) - {"a", "label"} | {"agent", "bot", "replies", "answers", "responses", "demonstration"}
WORDS = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])")


def unknown_fields(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line: what the rows are not known as, their fields, and how to name them."""
    fields = fields_of(rows)
    if is_turn(rows):
        return (
            f"each row is one turn (it has {listed(fields)}), not a conversation; a row needs all turns of one, "
            'such as {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
        )
    likely, first = _likely(rows, fields), f"(the first row: {shown(rows[0], 200)})"
    if not likely and (text := plain_text_field(rows)):
        return (
            f"its field {text} is a text without a question and an answer (there is {listed(fields)}), and llmft trains "
            f"answers to prompts: rows need two fields, such as question and answer, or a list of messages {first}"
        )
    known = "no field is known as a question, an answer or a conversation"
    names = "data.columns.instruction=FIELD data.columns.output=FIELD, or data.columns.messages=FIELD"
    if likely:
        names = f"perhaps {likely.way_in.removeprefix('data=custom ')}"
    return f"{known}; there is {listed(fields)}; name them: {names} {first}"


def is_turn(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each row is a turn of a conversation."""
    return all({"content", "value"} & set(row) and {"role", "from"} & set(row) for row in rows)


def _likely(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> Reading | None:
    """The only fields whose names hold a word for a question and for an answer, if the rows can be read with them."""
    answers = [name for name in fields if _holds(name, REPLIES)]
    questions = [name for name in fields if _holds(name, ASKS) and name not in answers]
    if len(questions) != 1 or len(answers) != 1:
        return None
    reading = Reading("custom", {"instruction": questions[0], "output": answers[0]}).tried(rows)
    return reading if 2 * len(reading.examples) >= reading.rows else None


def _holds(name: str, words: Collection[str]) -> bool:
    return any(word.casefold() in words for word in WORDS.findall(name))
