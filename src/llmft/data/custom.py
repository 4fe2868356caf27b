"""Rows with fields of any name; ``data.columns`` maps them."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row, RowError, Turn, checked_text, shown, text_of, turns_of, value_of
from llmft.utils.errors import UserError

FLAT = ("instruction", "input", "output", "system", "id")
CHAT = ("messages", "system", "id")
# What ShareGPT and its descendants call the roles.
ROLES = {"human": "user", **dict.fromkeys(("gpt", "chatgpt", "bard", "bing", "model"), "assistant")}


class Custom(InstructionDataModule):
    """``columns={instruction: q, output: a}`` (and ``input``, ``system``, ``id``), or ``columns={messages: conversations}``."""

    def __init__(self, *, columns: Mapping[str, str], **rest: Any) -> None:
        self.column_names = {role: field for role, field in columns.items() if field is not None}
        if faults := column_faults(self.column_names):
            raise UserError.from_faults("data.columns", faults, shown=len(faults))
        super().__init__(**rest)

    def to_example(self, row: Row) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride] (it needs the columns)
        """The example of a row, its fields found by ``columns``."""
        system, id_ = self._optional(row, "system"), self._id(row)
        if "messages" in self.column_names:
            field = self.column_names["messages"]
            *context, answer = turns_of(plain_messages(value_of(row, field), field), field)
            example = Example(tuple(context), answer.content, id_)
            return example.with_system(system if system.strip() else None)
        turn = Turn("user", text_of(row, self.column_names["instruction"]), self._optional(row, "input"))
        example = Example((turn,), text_of(row, self.column_names["output"]), id_)
        return example.with_system(system if system.strip() else None)

    def fingerprint(self) -> dict[str, Any]:
        """The examples depend on ``columns`` too."""
        return {**super().fingerprint(), "columns": self.column_names}

    def _optional(self, row: Row, role: str) -> str:
        """The text of a column that may be empty or null, but must be there if it is named."""
        if role not in self.column_names or value_of(row, self.column_names[role]) is None:
            return ""
        return text_of(row, self.column_names[role], blank=True)

    def _id(self, row: Row) -> str:
        value = value_of(row, self.column_names["id"]) if "id" in self.column_names else ""
        return checked_text(str(value), self.column_names.get("id", "id"), blank=True)


def column_faults(columns: Mapping[str, str]) -> list[str]:
    """Errors in ``data.columns``; empty if it is valid."""
    known = CHAT if "messages" in columns else FLAT
    faults = [
        f"{name}: there is no such column here; there are {', '.join(known)}" for name in columns if name not in known
    ]
    faults += [
        f"{name}={shown(field)}: must be the name of a field"
        for name, field in columns.items()
        if not isinstance(field, str)
    ]
    if "messages" not in columns and not {"instruction", "output"} <= set(columns):
        faults.append("must name instruction and output, or messages: data.columns={instruction: q, output: a}")
    return faults


def plain_messages(messages: object, field: str) -> object:
    """Messages with ``from`` and ``value``, or with content in parts, as those with ``role`` and a text.

    Raises:
        RowError: A part is no text; names the entry.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return messages  # turns_of says what is wrong
    return [_plain(message, f"{field}[{number}]") for number, message in enumerate(messages)]


def _plain(message: object, place: str) -> object:
    if not isinstance(message, Mapping):
        return message
    if "from" in message and "role" not in message:
        role = message["from"]
        message = {
            "role": ROLES.get(role, role) if isinstance(role, str) else role,
            "content": value_of(message, "value", place),
        }
    content = message.get("content")
    if isinstance(content, list):
        texts = [_part(part, f"{place}.content[{number}]") for number, part in enumerate(content)]
        return {**message, "content": "".join(texts)}
    return message


def _part(part: object, place: str) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text":
        return checked_text(part.get("text"), f"{place}.text", blank=True)
    raise RowError(place, f"must be a part of type text, got {shown(part)}")
