"""What rows are recognized by: names of their fields, and the first rows of a file."""

from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import Any

import yaml

from llmft.config.paths import conf_dir
from llmft.data.sources.file_format import FileFormat
from llmft.data.sources.reader import read_file
from llmft.data.sources.resolve import SourceFile
from llmft.utils.errors import UserError

ROWS = 100  # of the first file, on which each reading is tried
# Common names of the fields of conversation, question and answer.
TURNS = ("messages", "conversations", "conversation", "dialogue", "chat", "turns")
QUESTION = (
    "instruction",
    "prompt",
    "question",
    "query",
    "input",
    "problem",
    "user",
    "article",
    "document",
    "source",
    "q",
)
QUESTION += ("frage", "pregunta", "text")
ANSWER = ("output", "completion", "response", "answer", "chosen", "target", "solution", "assistant", "reply", "summary")
ANSWER += ("highlights", "antwort", "respuesta", "réponse", "reponse", "a", "label")


@cache
def known_fields() -> dict[str, list[str]]:
    """The ``fields`` of every data set in ``conf/data``; a set with more of them comes first."""
    configs = {file.stem: yaml.safe_load(file.read_bytes()) for file in sorted(conf_dir().glob("data/*.yaml"))}
    found = {name: keys["fields"] for name, keys in configs.items() if keys.get("fields")}
    return dict(sorted(found.items(), key=lambda entry: -len(entry[1])))


def first_rows(parts: Sequence[SourceFile], count: int, layout: FileFormat = FileFormat()) -> list[Any]:  # noqa: B008 (frozen)
    """The first rows of the first file that has any, without those that cannot be parsed."""
    found: list[Any] = []
    for part in parts:
        try:
            for parsed in islice(read_file(part.given, part.file, layout), count):
                found += [parsed.row] if parsed.fault is None else []
        except UserError:  # the file's own faults are for when it is read
            pass
        if found:
            break
    return found
