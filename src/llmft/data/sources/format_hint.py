"""Recognize rows of another format than that of the chosen data set, and name the option that reads them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

import yaml

from llmft.config.paths import conf_dir
from llmft.data.sources.decompress import kind
from llmft.data.sources.reader import read_file
from llmft.data.sources.resolve import SourceFile
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.shell import argument

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
        return "; this looks like a ShareGPT row; use data=custom data.columns.messages=conversations"
    columns = columns_for(row)
    return f"; name the fields: data=custom {columns}" if columns else ""


def columns_for(fields: Iterable[str]) -> str:
    """The options ``data.columns.ROLE=FIELD`` for fields with common names, ready for a shell; empty if none is recognized."""
    names = list(fields)
    if turns := next((field for field in TURNS if field in names), None):
        return argument("data.columns.messages", turns)
    question = next((field for field in QUESTION if field in names), None)
    answer = next((field for field in ANSWER if field in names and field != question), None)
    if question is None or answer is None:
        return ""
    return f"{argument('data.columns.instruction', question)} {argument('data.columns.output', answer)}"


def options_for(path: str) -> str:
    """The options that read a data file, by the fields of its first row: ``data=custom data.path=FILE data.columns...``."""
    where, row = argument("data.path", path), first_row(path)
    for name, fields in known_fields().items() if isinstance(row, Mapping) else ():
        if all(field in row for field in fields):
            return f"data={name} {where}"
    columns = columns_for(row) if isinstance(row, Mapping) else ""
    return f"data=custom {where} {columns}".strip()


def first_row(path: str) -> Any:
    """The first row of a file, or of the first file in a folder; None if there is none that can be read."""
    file = user_path(path)
    if file.is_dir():
        file = next((f for f in sorted(file.iterdir()) if kind(f)), file)
    if not (file.is_file() and kind(file)):
        return None
    return next(iter(first_rows([SourceFile(path, file)], 1)), None)


def first_rows(parts: Sequence[SourceFile], count: int) -> list[Any]:
    """The first rows of the first file that has any, without those that cannot be parsed."""
    found: list[Any] = []
    for part in parts:
        try:
            for parsed in islice(read_file(part.given, part.file), count):
                found += [parsed.row] if parsed.fault is None else []
        except UserError:  # the file's own faults are for when it is read
            pass
        if found:
            break
    return found
