"""``data=auto``: the data set that the rows of ``data.path`` need, where the command line names none."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmft.config.override_text import is_readable
from llmft.config.text_format import is_delimiter, is_encoding
from llmft.data.detect import Reading, fields_of, readings, refused_readings, split_field
from llmft.data.records import Example, shown
from llmft.data.sources.file_format import FileFormat
from llmft.data.sources.format_hint import ROWS, first_rows
from llmft.data.sources.resolve import as_given, local_files
from llmft.data.unknown_fields import is_turn, unknown_fields
from llmft.utils.console import say
from llmft.utils.errors import UserError
from llmft.utils.rank import is_first
from llmft.utils.shell import argument

COMMANDS = ("train", "preview", "estimate", "prove")
# Options that choose the data set, or a run that has one.
CHOOSES = ("resume", "experiment", "run")
KEEPS = ("data.sets", "data._target_", "data@")


def with_data_set(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments, with ``data=`` and ``data.columns`` for the rows of ``data.path`` unless they choose a data set.

    Args:
        command: E.g. ``train``.
        arguments: Flags and overrides in Hydra's grammar; of a sweep, ``data.path`` may have several values.

    Raises:
        UserError: The rows can be read in several ways, or in none; the files of a sweep differ.
    """
    given = {key.lstrip("+~"): value for key, _, value in (argument.partition("=") for argument in arguments)}
    if command not in COMMANDS or given.get("data", "auto") != "auto":
        return list(arguments)
    rest = [argument for argument in arguments if argument != "data=auto"]
    if "data" in given and "data.path" not in given:
        raise UserError("data=auto: needs data.path=FILE, whose rows decide")
    others = any(given.get(key, "null") not in ("null", "none") for key in CHOOSES)
    if "data.path" not in given or others or any(key.startswith(KEEPS) for key in given):
        return rest
    has_columns = any(key.startswith("data.columns.") for key in given)
    files = {as_given(path): path for path in _paths(f"data.path={given['data.path']}")}
    if has_columns:
        return [*rest, "data=custom"] if files else rest
    encoding, delimiter = _text(given, "data.encoding"), _text(given, "data.delimiter")
    if not (is_encoding(encoding or "utf-8") and is_delimiter(delimiter or ",")):
        return rest  # reported later
    layout = FileFormat(encoding, delimiter, _text(given, "data.sheet"), keys="data")
    by_field = "data.split_by" not in given and given.get("data.streaming", "false").lower() != "true"
    found = {name: reading for name, path in files.items() if (reading := _reading(name, path, layout, by_field))}
    if not found:
        return rest
    first, *more = found.items()
    for name, reading in more:
        if reading.pairs != first[1].pairs:
            listed = "; ".join(f"{name}: {reading.options}" for name, reading in (first, (name, reading)))
            raise UserError(f"data.path: the files of the sweep need different data sets; sweep each alone ({listed})")
    return [*rest, *(option for option in first[1].overrides if option.partition("=")[0] not in set(given) - {"data"})]


def _paths(override: str) -> list[Any]:
    """The values of ``data.path``: a path or a list of files; several in a sweep. None of them if it is not readable."""
    values = _values(override)
    paths = [[str(file) for file in value] if isinstance(value, list) else str(value) for value in values]
    return [path for path in paths if "${" not in str(path) and path != "None"]


def _values(override: str) -> list[Any]:
    """The values of an override, several in a sweep; none if it is not readable."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not is_readable(override):
        return []  # reported later
    parsed: Any = OverridesParser.create().parse_override(override)
    return list(parsed.value().list) if parsed.is_choice_sweep() else [parsed.value()]


def _text(given: Mapping[str, str], key: str) -> str | None:
    """The text of a key on the command line; None for null, a sweep and what is no text."""
    values = _values(f"{key}={given[key]}") if key in given else []
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def _reading(name: str, path: str | list[str], layout: FileFormat, by_field: bool) -> Reading | None:
    """The one reading of a file's rows, which is printed; None for what is no local file, or holds no rows.

    Args:
        name: The file as the user wrote it.
        path: The file or files.
        layout: How they are read.
        by_field: Whether a field ``split`` decides the splits.
    """
    try:
        parts = local_files(path)
    except UserError:
        return None  # the checks of all values say so
    rows = [row for row in first_rows(parts, ROWS, layout) if isinstance(row, Mapping)] if parts else []
    if not rows:
        return None
    found = readings(rows) or [_by_fields(name, rows)]
    if len(found) > 1 and is_turn(rows):
        raise UserError(f"data.path={name}: {unknown_fields(rows)}")
    if len(found) > 1:
        ways = "".join(f"\n  - {reading.options}\n    {_sample(reading.examples[0])}" for reading in found[:2])
        more = f" (the likeliest two of {len(found)})" if len(found) > 2 else ""
        raise UserError(f"data.path={name}: its rows can be read in several ways; choose one by its keys{more}{ways}")
    reading = replace(found[0], split_by=split_field(rows) if by_field else "")
    if is_first():
        say(_line(name, reading, fields_of(rows)), style="green")
    return reading


def _line(name: str, reading: Reading, fields: Sequence[str]) -> str:
    accepted, rows = len(reading.examples), reading.rows
    share = f"{accepted} of the first {rows} rows are such" if accepted < rows else f"its first {rows} rows are such"
    share = "its first row is such" if rows == accepted == 1 else share
    if rows and not accepted:
        refused = f"none of the first {rows} rows is" if rows > 1 else "its first row is not"
        share = f"by their fields; {refused} accepted"
    numbers = ", numbers as text" if reading.coerce else ""
    numbers += f", split by their field {reading.split_by}" if reading.split_by else ""
    return f"{argument('data.path', name)}: {reading.kind(fields)}{numbers} ({share}); the same as {reading.options}"


def _sample(example: Example) -> str:
    return f"prompt {shown(example.context[-1].content)}, answer {shown(example.answer)}"


def _by_fields(name: str, rows: Sequence[Mapping[str, Any]]) -> Reading:
    """The data set whose fields the rows have, although it accepts none of them: it says why, row by row.

    Raises:
        UserError: There is none.
    """
    if refused := refused_readings(rows):
        return refused[0]
    raise UserError(f"data.path={name}: {unknown_fields(rows)}")
