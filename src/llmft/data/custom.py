"""Rows with fields of any name; ``data.columns`` maps them."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmft.config.schema.data import CustomData
from llmft.data.columns import check_columns, listed
from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row, RowError, Turn, checked_text, text_of, value_of
from llmft.data.row_fields import chat_example, history_of, row_weight
from llmft.utils.shell import argument

# Columns that a chat row has under their own names, unless data.columns says otherwise.
OPTIONAL = ("system", "tools", "weight")


class Custom(InstructionDataModule):
    """``data.columns.instruction=q data.columns.output=a`` (and ``input``, ``system``, ``id``), or ``data.columns.messages=m``.

    Raises:
        UserError: A column is unknown, or one is missing; names the fields of the file.
    """

    def __init__(self, config: CustomData) -> None:
        self.column_names = {role: field for role, field in config.columns.node().items() if field is not None}
        super().__init__(config)
        check_columns(self.column_names, config.path or "")

    def to_example(self, row: Row) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride] (it needs the columns)
        """The example of a row, its fields found by ``columns``."""
        self._check_fields(row)
        return replace(self._chat(row) if "messages" in self.column_names else self._flat(row), id=self._id(row))

    def _chat(self, row: Row) -> Example:
        named = {role: self.column_names.get(role, role) for role in OPTIONAL}
        return chat_example(row, self.column_names["messages"], **named)

    def _flat(self, row: Row) -> Example:
        names = self.column_names
        turn = Turn("user", text_of(row, names["instruction"]), self._optional(row, "input"))
        example = Example(
            (*(history_of(row, names["history"]) if "history" in names else ()), turn),
            text_of(row, names["output"]),
            reasoning=self._optional(row, "reasoning") or None,
            weight=row_weight(row, names["weight"]) if "weight" in names else 1.0,
        )
        system = self._optional(row, "system")
        return example.with_system(system if system.strip() else None)

    def fingerprint(self) -> dict[str, Any]:
        """The examples depend on ``columns`` too."""
        return {**super().fingerprint(), "columns": self.column_names}

    def _check_fields(self, row: Row) -> None:
        """Refuse a row that lacks a named field, with the key of ``data.columns`` that names it.

        Raises:
            RowError: A field is missing.
        """
        if not isinstance(row, Mapping):
            return  # value_of refuses it
        for role, field in self.column_names.items():
            if field not in row:
                near = difflib.get_close_matches(field, [str(name) for name in row], n=1)
                meant = f". Did you mean {argument(f'data.columns.{role}', near[0])}?" if near else ""
                raise RowError(f"data.columns.{role}={field}", f"no such field; there is {listed(row)}{meant}")

    def _optional(self, row: Row, role: str) -> str:
        """The text of a column that may be empty or null, but must be there if it is named."""
        if role not in self.column_names or value_of(row, self.column_names[role]) is None:
            return ""
        return text_of(row, self.column_names[role], blank=True)

    def _id(self, row: Row) -> str:
        value = value_of(row, self.column_names["id"]) if "id" in self.column_names else ""
        return checked_text(str(value), self.column_names.get("id", "id"), blank=True)
