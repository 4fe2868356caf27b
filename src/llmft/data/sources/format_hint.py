"""Rows of another format than was asked for -> which it is, and the key that reads it."""

from collections.abc import Mapping
from typing import Any

# The fields that only rows of that data set have together; the more of them the better the guess.
SHAPES = {
    "academic": ("messages",),
    "openorca": ("system_prompt", "question", "response"),
    "psychology": ("question", "response_j"),
    "keyword_qa": ("question", "answer_keywords"),
    "alpaca": ("instruction", "output"),
}
# Names that others give to what they ask and answer.
ASKED = ("instruction", "prompt", "question", "query", "input", "problem", "q", "text")
ANSWERED = ("output", "completion", "response", "answer", "chosen", "target", "solution", "a")


def looks_like(row: Any, name: str) -> str:
    """A hint such as ``; this looks like Alpaca rows; use data=alpaca``, or nothing.

    Args:
        row: As it was parsed.
        name: The data set that was asked for.
    """
    if not isinstance(row, Mapping):
        return ""
    for shape, fields in SHAPES.items():
        if all(field in row for field in fields):
            return "" if shape == name else f"; this looks like {_titles(shape)} rows; use data={shape}"
    if name == "custom":
        return ""
    if "conversations" in row:
        return "; this looks like ShareGPT rows; use data=custom data.columns={messages: conversations}"
    asked = next((field for field in ASKED if field in row), None)
    answered = next((field for field in ANSWERED if field in row and field != asked), None)
    if asked and answered:
        return f"; name the fields: data=custom data.columns={{instruction: {asked}, output: {answered}}}"
    return ""


def _titles(shape: str) -> str:
    titles = {"academic": "chat (messages)", "openorca": "Open Orca", "keyword_qa": "keyword"}
    return titles.get(shape, shape.capitalize())
