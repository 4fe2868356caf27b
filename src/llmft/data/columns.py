"""``data.columns``: which field of a row is the instruction, the answer, ..."""

from collections.abc import Callable, Mapping, Sequence

from llmft.data.detect import fields_of, readings
from llmft.data.records import listed, shown
from llmft.data.sources.file_format import FileFormat
from llmft.data.sources.format_hint import ROWS, first_rows
from llmft.data.sources.resolve import as_given, local_files
from llmft.utils.errors import UserError

FLAT = ("instruction", "input", "output", "system", "history", "reasoning", "weight", "id")
CHAT = ("messages", "output", "system", "tools", "weight", "id")


def check_columns(columns: Mapping[str, str | None], path: str | Sequence[str], layout: FileFormat) -> None:
    """Refuse columns that are unknown, or too few.

    Args:
        columns: ``data.columns``; null for a role without a field.
        path: ``data.path``, whose fields the message lists.
        layout: How its files are read, and the section of these keys.

    Raises:
        UserError: All faults in one message.
    """
    given = {role: field for role, field in columns.items() if field is not None}
    if faults := column_faults(given, lambda: _fields_of(path, layout)):
        faults = [fault.replace("data.columns.", f"{layout.keys}.columns.") for fault in faults]
        raise UserError.from_faults(f"{layout.keys}.columns", faults, shown=len(faults))


def _fields_of(path: str | Sequence[str], layout: FileFormat) -> str:
    """The fields of a file's first rows, and the options that read them; empty for what is not on this machine."""
    rows = [row for row in first_rows(local_files(path), ROWS, layout) if isinstance(row, Mapping)]
    if not rows:
        return ""
    ways = [reading.way_in.removeprefix("data=custom ") for reading in readings(rows)[:2]] or [
        "data.columns.ROLE=FIELD"
    ]
    return f"; {as_given(path)} has the fields {listed(fields_of(rows))}: {' or '.join(ways)}"


def column_faults(columns: Mapping[str, str], fields: Callable[[], str] = str) -> list[str]:
    """Errors in ``data.columns``; empty if it is valid. ``fields`` describes the fields of the file, if that is needed."""
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
        faults.append(f"must name instruction and output, or messages{fields() or '; data.columns.ROLE=FIELD'}")
    return faults
