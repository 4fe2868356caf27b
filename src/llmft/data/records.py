"""``Example``: what a data set makes of a raw row, before any prompt template; and helpers that read and check fields."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

Row = Mapping[str, Any]
# Whether numbers and booleans are read as text: ``data.coerce``.
COERCE: ContextVar[bool] = ContextVar("COERCE", default=False)
HALF = re.compile("[\ud800-\udfff]")
# Where a reason goes on with what this row has, such as a value or the names of its fields.
OF_THE_ROW = re.compile(r"(, got |; there is |: \"|, is )")


class RowError(ValueError):
    """An invalid row: the field and the reason (its place is added by the reader)."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    @property
    def kind(self) -> str:
        """The field and the reason without what only this row has: numbers, values, names of other fields."""
        return re.sub(r"\d+", "N", f"{self.field}: {OF_THE_ROW.split(self.reason)[0]}")


class NotTrainedError(RowError):
    """A valid row that says itself that it is not to be trained; it is dropped and counted, whatever ``data.invalid`` is.

    Args:
        field: The field that says so.
        reason: What it says.
        why: The short reason that is counted.
    """

    def __init__(self, field: str, reason: str, why: str) -> None:
        super().__init__(field, reason)
        self.why = why


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation.

    Attributes:
        role: ``system``, ``developer``, ``user``, ``assistant`` or ``tool``.
        content: The text of the turn.
        input: Additional material of an instruction (Alpaca's input).
        reasoning: The reasoning of an assistant turn, without the tags that a template puts around it; None if it has none.
        tool_calls: Calls of an assistant turn, each as the JSON text of the data, so that no argument is changed by storing it.
        name: The name of the tool whose result this is, or of the speaker.
        tool_call_id: The call that a tool turn answers.
        weight: Factor of the turn's tokens in the loss; 0 is not trained.
    """

    role: str
    content: str
    input: str = ""
    reasoning: str | None = None
    tool_calls: tuple[str, ...] = ()
    name: str = ""
    tool_call_id: str = ""
    weight: float = 1.0

    def texts(self) -> tuple[str, ...]:
        """All texts of the turn that a user has written."""
        return (self.content, self.input, self.reasoning or "", *self.tool_calls)

    def message(self) -> dict[str, Any]:
        """The turn as a message for a chat template: ``content`` has all of it, ``instruction`` and ``input`` its parts.

        Reasoning is ``reasoning_content``, calls have their arguments parsed, and a turn of calls alone has no content.
        """
        full = f"{self.content}\n\n{self.input}" if self.input else self.content
        message: dict[str, Any] = {
            "role": self.role,
            "content": full,
            "instruction": self.content,
            "input": self.input,
        }
        if self.tool_calls:
            message["tool_calls"] = [parsed_call(call) for call in self.tool_calls]
            if not full:
                del message["content"]
        optional = {"reasoning_content": self.reasoning, "name": self.name, "tool_call_id": self.tool_call_id}
        return message | {key: value for key, value in optional.items() if value}


def parsed_call(call: str) -> dict[str, Any]:
    """A tool call from its JSON text, its arguments as an object (the OpenAI API writes them as a text)."""
    parsed = json.loads(call)
    parsed = parsed if "function" in parsed else {"type": "function", "function": parsed}
    function = dict(parsed["function"])
    if isinstance(function.get("arguments"), str):
        function["arguments"] = json.loads(function["arguments"] or "{}")
    return {**parsed, "function": function}


@dataclass(frozen=True)
class Example:
    """A training example: the context and the assistant turn to be learned.

    Attributes:
        context: The turns before the answer.
        answer: The text of the answer; ``reasoning`` and ``tool_calls`` are those of its turn.
        tools: The tools that the assistant may call, each as the JSON text of its schema.
        weight: Factor of the example's tokens in the loss.
        answer_weight: As ``Turn.weight``, of the answer.
    """

    context: tuple[Turn, ...]
    answer: str
    id: str = ""
    place: str = ""
    source: str = ""
    reasoning: str | None = None
    tool_calls: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    weight: float = 1.0
    answer_weight: float = 1.0

    @classmethod
    def from_turns(
        cls, turns: Sequence[Turn], id_: str = "", *, tools: Sequence[str] = (), weight: float = 1.0
    ) -> "Example":
        """The example of a conversation whose last turn is the answer."""
        *context, last = turns
        return cls(
            context=tuple(context),
            answer=last.content,
            id=id_,
            reasoning=last.reasoning,
            tool_calls=last.tool_calls,
            tools=tuple(tools),
            weight=weight,
            answer_weight=last.weight,
        )

    @property
    def reply(self) -> Turn:
        """The answer as a turn."""
        return Turn(
            "assistant", self.answer, reasoning=self.reasoning, tool_calls=self.tool_calls, weight=self.answer_weight
        )

    def texts(self) -> Iterator[str]:
        """All texts of the example that a user has written."""
        for turn in (*self.context, self.reply):
            yield from turn.texts()
        yield from self.tools

    def at(self, number: int) -> "Example":
        """The example whose answer is the assistant turn ``number`` of the context; no turn before it is trained."""
        before = tuple(replace(turn, weight=0.0) for turn in self.context[:number])
        turn = self.context[number]
        return replace(
            self,
            context=before,
            answer=turn.content,
            reasoning=turn.reasoning,
            tool_calls=turn.tool_calls,
            answer_weight=turn.weight,
        )

    def with_system(self, system: str | None) -> "Example":
        """The example with a system prompt, unless it has its own."""
        if not system or self.context[0].role in ("system", "developer"):
            return self
        return replace(self, context=(Turn("system", system), *self.context))


def shown(value: object, width: int = 60) -> str:
    """A value for an error message: as JSON if possible, cut at ``width`` characters."""
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def listed(names: Iterable[object]) -> str:
    """The names of fields in a line; one that cannot be printed as JSON."""
    return ", ".join(str(name) if str(name).isprintable() else shown(name) for name in names) or "no fields"


def value_of(row: Row, field: str, place: str = "") -> Any:
    """The value in a field of a row (or of an object inside it, at ``place``).

    Raises:
        RowError: The row is not an object, or the field is missing.
    """
    if not isinstance(row, Mapping):
        raise RowError(place or "row", f"must be an object, got {shown(row)}")
    if field not in row:
        raise RowError(f"{place}.{field}" if place else field, f"is missing; there is {listed(row)}")
    return row[field]


def text_of(row: Row, field: str, *, blank: bool = False) -> str:
    """The text in a field of a row.

    Args:
        row: The row.
        field: The field's name.
        blank: Whether empty text or white space is allowed.

    Raises:
        RowError: The field is missing, not a string, or blank and ``blank`` is false.
    """
    return checked_text(value_of(row, field), field, blank=blank)


def checked_text(value: object, field: str, *, blank: bool = False) -> str:
    """``value`` if it is text that can be encoded.

    Raises:
        RowError: It is not, or it is blank and ``blank`` is false.
    """
    if isinstance(value, bool | int | float):
        if not COERCE.get():
            raise RowError(field, f"must be text, got {shown(value)}")
        value = json.dumps(value)
    if not isinstance(value, str):
        raise RowError(field, f"must be text, got {shown(value)}")
    if not blank and not value.strip():
        raise RowError(field, f"must not be blank, got {shown(value)}")
    if HALF.search(value):
        raise RowError(field, f"holds half of a surrogate pair, which is no character: {shown(value)}")
    return value


@contextmanager
def coerced(coerce: bool = True) -> Iterator[None]:
    """Read numbers and booleans as text, written as in JSON (``data.coerce=true``), while it is active."""
    token = COERCE.set(coerce)
    try:
        yield
    finally:
        COERCE.reset(token)
