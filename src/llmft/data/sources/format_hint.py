"""Recognize rows of another format than that of the chosen data set, and name the option that reads them."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from llmft.config.paths import conf_dir

# Common names of the fields of question and answer.
QUESTION = ("instruction", "prompt", "question", "query", "input", "problem", "q", "text")
ANSWER = ("output", "completion", "response", "answer", "chosen", "target", "solution", "a")


@cache
def known_fields() -> dict[str, list[str]]:
    """The ``fields`` of every data set in ``conf/data``; a set with more of them comes first."""
    configs = {file.stem: yaml.safe_load(file.read_bytes()) for file in sorted(conf_dir().glob("data/*.yaml"))}
    found = {name: keys["fields"] for name, keys in configs.items() if keys.get("fields")}
    return dict(sorted(found.items(), key=lambda entry: -len(entry[1])))


def looks_like(row: Any, name: str, fields: Sequence[str] = ()) -> str:
    """A hint such as ``; this looks like a row of another data set; use data=alpaca``, or an empty text.

    Args:
        row: A parsed row that the chosen data set cannot read.
        name: The chosen data set.
        fields: The chosen data set's own ``fields``.
    """
    if not isinstance(row, Mapping) or (fields and all(field in row for field in fields)):
        return ""
    for other, names in known_fields().items():
        if all(field in row for field in names):
            return "" if other == name else f"; this looks like a row of another data set; use data={other}"
    if name == "custom":
        return ""
    if "conversations" in row:
        return "; this looks like a ShareGPT row; use data=custom data.columns={messages: conversations}"
    question = next((field for field in QUESTION if field in row), None)
    answer = next((field for field in ANSWER if field in row and field != question), None)
    if question and answer:
        return f"; name the fields: data=custom data.columns={{instruction: {question}, output: {answer}}}"
    return ""
