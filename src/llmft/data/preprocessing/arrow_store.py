"""Examples and encoded rows in memory-mapped Arrow files; a row is decoded when it is indexed, none is kept in memory."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
import pyarrow as pa

from llmft.data.records import Example, Turn
from llmft.data.tokenization.codec import EncodedExample

T = TypeVar("T")

EXAMPLES = pa.schema([(name, pa.string()) for name in ("place", "id", "source", "context", "answer", "more")])
# Attributes that few turns and few examples have, with their defaults; only other values are stored.
OF_TURN = {"reasoning": None, "tool_calls": (), "name": "", "tool_call_id": "", "weight": 1.0}
OF_EXAMPLE = {"reasoning": None, "tool_calls": (), "tools": (), "weight": 1.0, "answer_weight": 1.0}
IDS = pa.list_(pa.int32())
ENCODED = pa.schema(
    [("place", pa.string()), ("input_ids", IDS), ("labels", IDS), ("lost", pa.string())]
    + [(name, pa.int32()) for name in ("prompt_length", "answer_length", "supervised", "untrained_turns")]
    + [(name, pa.bool_()) for name in ("cut", "merged")]
    + [("weights", pa.list_(pa.float32()))]
)
# Columns of numbers about the encoded rows, one file each, so that samplers and audit read nothing else.
COLUMNS: dict[str, Any] = {
    **dict.fromkeys(
        ("ids", "labels", "prompt_tokens", "answer_tokens", "prompt_characters", "answer_characters"), np.int32
    ),
    "example": np.int32,
    **dict.fromkeys(("source", "prompt", "prompt_like", "row", "row_like", "answer", "opening"), np.int64),
    **dict.fromkeys(("odd", "lost", "placeholder", "html"), np.bool_),
}


@contextmanager
def writing(file: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Yield a function that writes record batches to a file for ``ArrowTable``; their offsets go to a second file.

    (Reading the length of every batch would map pages of the whole file into memory.)
    """
    sizes: list[int] = []

    def write(batch: pa.RecordBatch) -> None:
        writer.write_batch(batch)
        sizes.append(batch.num_rows)

    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        yield write
    np.cumsum([0, *sizes], dtype=np.int64).tofile(file.with_suffix(".starts"))


class ArrowTable:
    """Random access to the rows of an Arrow file; only the indexed record batch is read."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.reader = pa.ipc.open_file(pa.memory_map(str(file)))
        self.starts = np.fromfile(file.with_suffix(".starts"), np.int64)
        self.held: tuple[int, Any] = (-1, None)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return ArrowTable, (self.file,)  # a loader's worker opens the file itself

    def __len__(self) -> int:
        return int(self.starts[-1])

    def row(self, number: int) -> dict[str, Any]:
        """A row by its number, as Python values."""
        index = int(np.searchsorted(self.starts, number, side="right")) - 1
        if self.held[0] != index:
            self.held = (index, self.reader.get_batch(index))
        batch = self.held[1]
        offset = number - int(self.starts[index])
        return {name: _python(batch.column(i)[offset]) for i, name in enumerate(batch.schema.names)}


def _python(value: Any) -> Any:
    if value.type == IDS:
        return _integers(value.values) if value.is_valid else None
    return value.as_py()


def _integers(array: Any) -> list[int]:
    """An array of int32 as a list; pyarrow's ``to_numpy`` would import pandas, which takes longer than a thousand rows."""
    return np.frombuffer(array.buffers()[1], np.int32, len(array), 4 * array.offset).tolist() if len(array) else []


class LazyRows(Sequence[T], Generic[T]):
    """A selection of rows of a table, in any order, decoded by ``make`` when they are indexed."""

    def __init__(self, table: ArrowTable, indices: np.ndarray) -> None:
        self.table, self.indices = table, indices

    def make(self, number: int) -> T:
        """Decode the row ``number`` of the table."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, key: int) -> T: ...
    @overload
    def __getitem__(self, key: slice) -> "LazyRows[T]": ...
    def __getitem__(self, key: int | slice) -> "T | LazyRows[T]":
        if isinstance(key, slice):
            return type(self)(self.table, self.indices[key])
        return self.make(int(self.indices[key]))

    def __iter__(self) -> Iterator[T]:
        return (self.make(int(number)) for number in self.indices)


class Examples(LazyRows[Example]):
    """Examples in a file of ``write_examples``."""

    def make(self, number: int) -> Example:
        """Decode an example."""
        return example_of(self.table.row(number))


class Rows(LazyRows[EncodedExample]):
    """Encoded examples in a file of ``Preprocessor.write``."""

    def make(self, number: int) -> EncodedExample:
        """Decode an encoded example."""
        return encoded_of(self.table.row(number))


def encoded_of(row: dict[str, Any]) -> EncodedExample:
    """An encoded example from its stored row; labels that are not stored are the answer's ids (causal, one trained answer)."""
    if row["labels"] is None:
        row["labels"] = [-100] * row["prompt_length"] + row["input_ids"][row["prompt_length"] :]
    return EncodedExample(**{**row, "lost": row["lost"] or ""})


def example_of(row: dict[str, Any]) -> Example:
    """An example from its stored row."""
    context = tuple(Turn(*texts, **_arguments(more)) for *texts, more in json.loads(row["context"]))
    more = _arguments(json.loads(row["more"])) if row["more"] else {}
    return Example(context, row["answer"], row["id"], row["place"], row["source"], **more)


def _arguments(more: dict[str, Any]) -> dict[str, Any]:
    """Stored attributes as arguments: JSON has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in more.items()}


def _more(values: Sequence[Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a turn or an example that are not the default."""
    if values == tuple(defaults.values()):
        return {}
    return {name: value for (name, default), value in zip(defaults.items(), values, strict=True) if value != default}


_of_turn, _of_example = attrgetter(*OF_TURN), attrgetter(*OF_EXAMPLE)


def example_batch(examples: Sequence[Example]) -> pa.RecordBatch:
    """Examples as a record batch."""
    contexts = [
        [(turn.role, turn.content, turn.input, _more(_of_turn(turn), OF_TURN)) for turn in example.context]
        for example in examples
    ]
    columns = [
        [example.place for example in examples],
        [example.id for example in examples],
        [example.source for example in examples],
        [json.dumps(context, ensure_ascii=False) for context in contexts],
        [example.answer for example in examples],
        [
            json.dumps(more, ensure_ascii=False) if more else None
            for more in (_more(_of_example(e), OF_EXAMPLE) for e in examples)
        ],
    ]
    return pa.record_batch([pa.array(column, pa.string()) for column in columns], schema=EXAMPLES)


def encoded_batch(rows: Sequence[EncodedExample]) -> pa.RecordBatch:
    """Encoded examples as a record batch; labels that follow from the ids are not stored."""
    labels = [None if _implied(row) else row.labels for row in rows]
    values = {
        "input_ids": [row.input_ids for row in rows],
        "labels": labels,
        "lost": [row.lost or None for row in rows],
    }
    columns = [_array(values.get(f.name) or [getattr(row, f.name) for row in rows], f.type) for f in ENCODED]
    return pa.record_batch(columns, schema=ENCODED)


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    if type_ != IDS:
        return pa.array(values, type_)
    flat = np.fromiter(chain.from_iterable(ids for ids in values if ids), np.int32)
    offsets = np.cumsum([0, *(len(ids or ()) for ids in values)], dtype=np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(flat), mask=pa.array([ids is None for ids in values], pa.bool_())
    )


def _implied(row: EncodedExample) -> bool:
    head = row.prompt_length
    return (
        row.joined
        and len(row.labels) == len(row.input_ids)
        and row.labels[head:] == row.input_ids[head:]
        and row.labels[:head] == [-100] * head
    )


def read_batch(file: Path, number: int) -> list[Example]:
    """The examples of one record batch; read, not mapped: pages of the whole file would stay in memory."""
    with pa.OSFile(str(file)) as source:
        return [example_of(row) for row in pa.ipc.open_file(source).get_batch(number).to_pylist()]


def batches_in(file: Path) -> tuple[int, int]:
    """The number of record batches and of rows of a file."""
    table = ArrowTable(file)
    return table.reader.num_record_batches, len(table)


class ColumnFiles:
    """Writes the columns of numbers of encoded rows."""

    def __init__(self, folder: Path) -> None:
        self.files = {name: (folder / f"{name}.bin").open("wb") for name in COLUMNS}

    def write(self, columns: dict[str, np.ndarray]) -> None:
        """Append the values of some rows."""
        for name, file in self.files.items():
            file.write(columns[name].astype(COLUMNS[name]).tobytes())

    def close(self) -> None:
        """Flush and close the files."""
        for file in self.files.values():
            file.close()


class RowColumns:
    """The columns of numbers of encoded rows, each read from its file when it is indexed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> np.ndarray:
        return np.fromfile(self.folder / f"{name}.bin", COLUMNS[name])

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of these rows, as ``sizes_of``."""
        return sizes_of(self["ids"], self["labels"])[rows]


def sizes_of(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Tokens of each row: [rows, 1] for causal models, [rows, 2] (source, target) for seq2seq."""
    return np.stack([ids, labels] if labels.any() else [ids], axis=1)


def columns_of(rows: Iterable[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The numbers of rows as columns."""
    listed = list(rows)
    return {name: np.array([row[name] for row in listed], kind) for name, kind in COLUMNS.items()}
