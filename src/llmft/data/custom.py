"""Rows with fields of any name; ``data.columns`` maps them."""

import difflib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from llmft.config.schema.data import CustomData
from llmft.data.columns import check_columns, listed
from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row, RowError
from llmft.data.row_shapes import column_example
from llmft.data.sources.format_hint import first_rows
from llmft.data.sources.resolve import local_files
from llmft.utils.shell import argument

NEEDED = ("instruction", "output", "messages")


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
        return column_example(row, self.column_names)

    def fingerprint(self) -> dict[str, Any]:
        """The examples depend on ``columns`` too."""
        return {**super().fingerprint(), "columns": self.column_names}

    @cached_property
    def _in_file(self) -> frozenset[str]:
        """The fields of the first rows of the file: of these, an optional one may be missing in a row."""
        parts = local_files(self.config.path) if self.config.path else []
        return frozenset(name for row in first_rows(parts, 100) if isinstance(row, Mapping) for name in row)

    def _check_fields(self, row: Row) -> None:
        """Refuse a row that lacks a named field, with the key of ``data.columns`` that names it.

        Raises:
            RowError: A field is missing.
        """
        if not isinstance(row, Mapping):
            return  # value_of refuses it
        for role, field in self.column_names.items():
            if field not in row and not (role not in NEEDED and field in self._in_file):
                near = difflib.get_close_matches(field, [str(name) for name in row], n=1)
                meant = f". Did you mean {argument(f'data.columns.{role}', near[0])}?" if near else ""
                raise RowError(f"data.columns.{role}={field}", f"no such field; there is {listed(row)}{meant}")
