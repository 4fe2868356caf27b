"""What kind of rows a file holds: every reading that its first rows allow, tried on these rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

from llmft.data.messages import as_list
from llmft.data.records import Example, NotTrainedError, Row, RowError, coerced
from llmft.data.row_fields import chat_example
from llmft.data.row_shapes import (
    alpaca_example,
    column_example,
    keyword_example,
    openorca_example,
    psychology_example,
    support_example,
)
from llmft.data.sources.format_hint import ANSWER, QUESTION, TURNS, known_fields
from llmft.data.split_names import split_named
from llmft.utils.shell import arguments, override

READERS: Mapping[str, Callable[[Row], Example]] = {
    "academic": chat_example,
    "alpaca": alpaca_example,
    "openorca": openorca_example,
    "psychology": psychology_example,
    "keyword_qa": keyword_example,
    "support": support_example,
}
KINDS = {
    "academic": "chat messages",
    "alpaca": "Alpaca instructions",
    "openorca": "OpenOrca questions with a system prompt",
    "psychology": "questions with a preferred answer",
    "keyword_qa": "questions with keywords as answers",
    "support": "support messages with labels",
}
# Fields that are the question or the answer only where no other field is.
WEAK = ("input", "text", "label", "a", "q")
# Fields of a text without question and answer, and fields that say something about a row; alone, these are neither of both.
PLAIN_TEXT = ("text", "content", "document", "article")
ABOUT = (
    "id",
    "uuid",
    "idx",
    "index",
    "url",
    "source",
    "title",
    "meta",
    "metadata",
    "lang",
    "language",
    "category",
    "date",
    "timestamp",
)
ABOUT += ("split", "subset")
# Fields that hold a whole conversation.
CONVERSATIONS = (*TURNS, "chosen")
# Optional columns by the names of their fields, the first that is there.
OTHERS = {
    "input": ("input", "context"),
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "reasoning": ("reasoning", "reasoning_content", "thinking"),
}


@dataclass(frozen=True)
class Reading:
    """A way to read rows.

    Attributes:
        data: The data set, an option of ``data=``.
        columns: ``data.columns`` of ``data=custom``.
        coerce: Whether numbers are read as text (``data.coerce=true``).
        split_by: The field that names the split of each row; empty if none does.
        examples: The examples of the first rows that it accepts.
        rows: Number of rows that were tried, without those that say themselves that they are not trained.
        fault: Why it refuses the first row that it does not accept.
    """

    data: str
    columns: Mapping[str, str] = field(default_factory=dict)
    coerce: bool = False
    examples: tuple[Example, ...] = ()
    rows: int = 0
    fault: str = ""
    split_by: str = ""

    @property
    def pairs(self) -> list[tuple[str, object]]:
        """The keys that choose this reading, and their values."""
        columns = [(f"data.columns.{role}", name) for role, name in self.columns.items()]
        named = [("data.split_by", f"column:{self.split_by}")] if self.split_by else []
        return [("data", self.data), *columns, *([("data.coerce", True)] if self.coerce else []), *named]

    @property
    def options(self) -> str:
        """``pairs`` as they are typed in a shell."""
        return arguments(self.pairs)

    @property
    def way_in(self) -> str:
        """``options``, with ``data.invalid=drop`` if it does not accept all of the rows."""
        return f"{self.options}{' data.invalid=drop' * (len(self.examples) < self.rows)}"

    @property
    def overrides(self) -> list[str]:
        """``pairs`` as overrides of Hydra."""
        return [override(key, value) for key, value in self.pairs]

    def kind(self, fields: Sequence[str]) -> str:
        """What the rows are, in words.

        Args:
            fields: Those of the rows.
        """
        if "rejected" in fields and "chosen" in self.columns.values():
            return "preference rows, trained on the chosen answer, rejected is not read"
        if self.data == "custom":
            return "chat messages" if "messages" in self.columns else "questions and answers"
        return KINDS[self.data]

    def tried(self, rows: Sequence[Row]) -> "Reading":
        """The reading with the examples of these rows; numbers are read as text if a column needs it."""
        plain = self._tried(rows, coerce=False)
        if (
            len(plain.examples) == plain.rows or "instruction" not in self.columns
        ):  # a turn that is a number is an error
            return plain
        other = self._tried(rows, coerce=True)
        return other if len(other.examples) > len(plain.examples) else plain

    def _tried(self, rows: Sequence[Row], *, coerce: bool) -> "Reading":
        read = partial(column_example, columns=self.columns) if self.data == "custom" else READERS[self.data]
        examples: list[Example] = []
        fault, untrained = "", 0
        with coerced(coerce):
            for row in rows:
                try:
                    examples.append(read(row))
                except NotTrainedError:
                    untrained += 1
                except RowError as error:
                    fault = fault or str(error)
        return Reading(self.data, self.columns, coerce, tuple(examples), len(rows) - untrained, fault)

    def texts(self) -> list[tuple[Any, ...]]:
        """Prompts and answers of the examples; two readings with the same ones are the same."""
        contexts = [[(turn.role, turn.content, turn.input) for turn in example.context] for example in self.examples]
        return [(context, example.answer) for context, example in zip(contexts, self.examples, strict=True)]


def readings(rows: Sequence[Row]) -> list[Reading]:
    """The readings that accept at least half of the rows (or else some), the likeliest first, none twice.

    Args:
        rows: The first rows of a file.
    """
    tried = [reading.tried(rows) for reading in _candidates(rows)]
    accepted = [reading for reading in tried if 2 * len(reading.examples) >= max(reading.rows, 1)]
    found: list[Reading] = []
    for reading in accepted or [reading for reading in tried if reading.examples]:
        if all(reading.texts() != other.texts() for other in found):
            found.append(reading)
    return found


def refused_readings(rows: Sequence[Row]) -> list[Reading]:
    """The readings whose fields are there although they accept none of the rows."""
    return [reading.tried(rows) for reading in _candidates(rows)]


def fields_of(rows: Sequence[Row]) -> list[str]:
    """The names of the fields of all rows, in order."""
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def split_field(rows: Sequence[Row]) -> str:
    """The field ``split`` that names train, validation or test set in every row; empty if there is none."""
    name = next((name for name in fields_of(rows) if name.strip().casefold() == "split"), "")
    return name if name and all(split_named(row.get(name)) for row in rows) else ""


def plain_text_field(rows: Sequence[Row]) -> str:
    """The field of rows that are one long text each, without question and answer; empty if there is none."""
    return next((name for name in fields_of(rows) if name.strip().casefold() in PLAIN_TEXT), "")


def _candidates(rows: Sequence[Row]) -> Iterator[Reading]:
    fields = fields_of(rows)
    names = {name.strip().casefold(): name for name in reversed(fields)}  # the first of several counts
    known = [data for data, needed in known_fields().items() if data in READERS and set(needed) <= set(fields)]
    yield from map(Reading, known)
    others = {role: names[name] for role, those in OTHERS.items() for name in reversed(those) if name in names}
    questions = [names[name] for name in QUESTION if name in names]
    answers = [names[name] for name in ANSWER if name in names]
    lists = [name for name in fields if name.casefold() in (*CONVERSATIONS, *QUESTION) and _is_conversation(rows, name)]
    system = {role: others[role] for role in ("system",) if role in others}
    for name in lists:
        if name.casefold() in CONVERSATIONS:
            yield Reading("custom", {"messages": name} | system)
        yield from (
            Reading("custom", {"messages": name, "output": answer} | system) for answer in answers if answer != name
        )
    for question, answer in _pairs(rows, [] if known else fields, questions, answers):
        rest = {role: name for role, name in others.items() if name not in (question, answer)}
        columns = {"instruction": question, "input": rest.get("input", ""), "output": answer} | rest
        yield Reading("custom", {role: name for role, name in columns.items() if name})


def _pairs(
    rows: Sequence[Row], fields: Sequence[str], questions: Sequence[str], answers: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Fields that may be question and answer: by their names, or the only ones with text."""
    questions, answers = _strong(questions), _strong([name for name in answers if name not in _strong(questions)])
    if not answers and {name.casefold() for name in questions} <= {*PLAIN_TEXT, *ABOUT}:
        questions = []  # a text with its source or title is no question
        fields = [name for name in fields if name.strip().casefold() not in (*PLAIN_TEXT, *ABOUT)]
    fields = [name for name in fields if name.strip().casefold() not in ABOUT or name in (*questions, *answers)]
    texts = [name for name in fields if all(isinstance(row.get(name), str | int | float | None) for row in rows)]
    if not questions and not answers and len(texts) == 2:
        yield (texts[0], texts[1])
        yield (texts[1], texts[0])
        return
    if not questions and answers:
        questions = [name for name in texts if name not in answers]
        questions = questions if len(questions) == 1 else []
    elif questions and not answers:
        answers = [name for name in texts if name not in questions]
        answers = answers if len(answers) == 1 else []
    yield from ((question, answer) for question, answer in product(questions, answers) if question != answer)


def _strong(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.casefold() not in WEAK] or list(names[:1])


def _is_conversation(rows: Sequence[Row], name: str) -> bool:
    """Whether a field holds lists of turns, or their JSON text, in most rows."""
    found = 0
    for row in rows:
        turns = as_list(row.get(name))
        first = turns[0] if isinstance(turns, list) and turns else None
        found += isinstance(first, Mapping) and bool({"role", "from"} & set(first))
    return 2 * found >= len(rows)
