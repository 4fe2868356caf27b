"""Rows with fields of any name; ``data.columns`` maps them."""

import difflib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from llmft.config.schema.data import CustomData
from llmft.data.columns import check_columns
from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row, RowError, listed
from llmft.data.row_shapes import column_example
from llmft.data.sources.format_hint import ROWS, first_rows
from llmft.data.sources.resolve import local_files
from llmft.utils.shell import arguments

NEEDED = ("instruction", "output", "messages")


class Custom(InstructionDataModule):
    """``data.columns.instruction=q data.columns.output=a`` (and ``input``, ``system``, ``id``), or ``data.columns.messages=m``.

    Raises:
        UserError: A column is unknown, or one is missing; names the fields of the file.
    """

    def __init__(self, config: CustomData) -> None:
        self.column_names = {role: field for role, field in config.columns.node().items() if field is not None}
        super().__init__(config)
        check_columns(self.column_names, config.path or "", self.layout)

    def to_example(self, row: Row) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride] (it needs the columns)
        """The example of a row, its fields found by ``columns``."""
        self._check_fields(row)
        return column_example(row, self.column_names)

    def fingerprint(self) -> dict[str, Any]:
        """The examples depend on ``columns`` too."""
        return {**super().fingerprint(), "columns": self.column_names}

    @cached_property
    def _in_file(self) -> frozenset[str]:
        """The fields of the first rows of the file: of these, an optional one may be missing in a row."""
        parts = local_files(self.config.path) if self.config.path else []
        return frozenset(
            name for row in first_rows(parts, ROWS, self.layout) if isinstance(row, Mapping) for name in row
        )

    def _check_fields(self, row: Row) -> None:
        """Refuse a row that lacks a named field, with the key of ``data.columns`` that names it.

        Raises:
            RowError: A field is missing.
        """
        if not isinstance(row, Mapping):
            return  # value_of refuses it
        missing = {role: field for role, field in self.column_names.items() if self._is_missing(role, field, row)}
        if missing:
            given = ", ".join(f"data.columns.{role}={field}" for role, field in missing.items())
            what = "no such field" if len(missing) == 1 else "no such fields"
            raise RowError(given, f"{what}; there is {listed(row)}{self._meant(missing, row)}")

    def _is_missing(self, role: str, field: str, row: Row) -> bool:
        return field not in row and not (role not in NEEDED and field in self._in_file)

    def _meant(self, missing: Mapping[str, str], row: Row) -> str:
        """The columns with names like the missing ones, if the row can be read with them."""
        names = [str(name) for name in row if name not in self.column_names.values()]
        near = {role: difflib.get_close_matches(field, names, n=1) for role, field in missing.items()}
        meant = {role: found[0] for role, found in near.items() if found}
        try:
            column_example(row, self.column_names | meant)
        except RowError:
            return ""
        return f". Did you mean {arguments((f'data.columns.{role}', field) for role, field in meant.items())}?"
