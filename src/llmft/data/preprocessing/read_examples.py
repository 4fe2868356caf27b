"""The raw rows of a source -> validated examples in a file, and counts of the rows that were dropped."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmft.data.preprocessing.arrow_store import EXAMPLES, example_batch, writing
from llmft.data.preprocessing.cache import key_of
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.preprocessing.split_keys import (
    SPLITS,
    SplitFieldError,
    SplitKey,
    own_file_key,
    split_key_of,
    write_split_keys,
)
from llmft.data.preprocessing.unread_fields import TrackedRow
from llmft.data.records import Example, NotTrainedError, Row, RowError, coerced
from llmft.data.sources import ParsedRow, Source, read
from llmft.data.sources.format_hint import looks_like
from llmft.utils.errors import UserError

# Maximum rows and characters of a stored record batch.
BATCH_ROWS = 1000
BATCH_CHARACTERS = 8_000_000
# Where this many rows at the start are all invalid and in another format, the file is in that format.
ALL_BAD = 20


@dataclass
class ExampleReader:
    """Reads the rows of one source as examples; the fields are keys of ``conf/data``.

    Attributes:
        first_only: Whether to raise at the first invalid row; else all of them are reported at the end.
        fields: By which a row of this data set is recognized.
        split: The split of all its rows, where a file is one; None where ``split_by`` decides.
        splits: All splits, which are stored as their numbers.
        coerce: Whether numbers are read as text.
    """

    source: Source
    name: str
    to_example: Callable[[Row], Example]
    system: str | None
    limit: int | None
    invalid: str
    duplicates: str
    first_only: bool = False
    fields: Sequence[str] = ()
    split_by: str = "position"
    split: str | None = None
    splits: Sequence[str] = SPLITS
    coerce: bool = False

    @property
    def key(self) -> str:
        """The key that names the files, for errors."""
        return own_file_key(self.split) if self.split else "data.path"

    def examples(self, counts: RowCounts, seen: dict[bytes, str]) -> Iterator[Example]:
        """Yield the examples in order, as ``with_split_keys`` without the keys."""
        return (example for example, _ in self.with_split_keys(counts, seen))

    def with_split_keys(self, counts: RowCounts, seen: dict[bytes, str]) -> Iterator[tuple[Example, SplitKey]]:
        """Yield the examples in order, with what decides their splits.

        Args:
            counts: What was read and dropped is counted here.
            seen: Digests of earlier examples and their places, for ``duplicates``; is added to.

        Raises:
            UserError: Rows are invalid (``invalid=error``) or repeated (``duplicates=error``), or all are in another format.
        """
        faults: dict[str, list[str]] = {}  # places by fault
        hint, found, first = "", 0, ""
        for located in read(self.source):
            if self.limit is not None and found >= self.limit:
                break
            counts.read += 1
            try:
                example, key, ignored = self._example(located)
                self._check_repeated(example, seen)
            except NotTrainedError as error:
                counts.drop(located.place, error.field, error.reason, error.why)
                continue
            except RowError as error:
                repeated = error.field == "duplicate"
                if not first:
                    first = f"{located.place}: {error}"
                    other_format = not isinstance(error, SplitFieldError)
                    hint = looks_like(located.row, self.name, self.fields) if other_format else ""
                if (self.duplicates if repeated else self.invalid) == "error":
                    faults.setdefault(f"{error}{hint if not faults else ''}", []).append(located.place)
                counts.drop(located.place, error.field, error.reason, "duplicate" if repeated else "invalid")
                counts.blank += error.reason.startswith("must not be blank")
                alike = hint or len(faults) == 1
                if (alike and not found and counts.read == ALL_BAD) or (faults and self.first_only):
                    break
                continue
            found += 1
            counts.ignore(ignored)
            yield example, key
        if hint and not found:
            raise UserError(f"{self.key}={self.source.given}: {first}{hint}")
        if len(faults) == 1 and not found and counts.read > 1 and not self.first_only:
            raise UserError(
                f"{self.key}={self.source.given}: {first} (the same in all of the first {counts.read} rows)"
            )
        if faults:
            raise UserError.from_faults(f"{self.key}={self.source.given}", [_line(*item) for item in faults.items()])

    def _example(self, located: ParsedRow) -> tuple[Example, SplitKey, Collection[str]]:
        """The example of a row, its split key, and the names of the fields that its data set did not read."""
        if located.fault:
            raise RowError("row", located.fault)
        row = TrackedRow(located.row) if type(located.row) is dict else located.row
        with coerced(self.coerce):
            example = self.to_example(row).with_system(self.system)
        number = located.place.rpartition(":")[2]
        example = replace(example, id=example.id or number, place=located.place, source=self.name)
        own = None if self.split is None else self.splits.index(self.split)
        key = split_key_of(example, row, self.split_by, own)
        return example, key, row.unread() if isinstance(row, TrackedRow) else ()

    def _check_repeated(self, example: Example, seen: dict[bytes, str]) -> None:
        if self.duplicates == "keep":
            return
        first = seen.setdefault(_digest(example), example.place)
        if first is not example.place:
            raise RowError("duplicate", f"repeats {first}")


def _line(fault: str, places: Sequence[str]) -> str:
    more = len(places) - 1
    return f"{places[0]}: {fault}" + (f" (and {more} more row{'s' if more > 1 else ''})" if more else "")


def write_examples(
    readers: Sequence[ExampleReader],
    folder: Path,
    counts: RowCounts,
    select: Callable[[Iterator[Example]], Iterator[Example]] = iter,
) -> None:
    """Write ``examples.arrow`` and their split keys from one source or several, and count in ``counts``.

    Args:
        readers: In order.
        folder: For the files.
        counts: What was read and dropped is counted here.
        select: Chooses among the examples of a stream, which have no split keys; it may stop before the end.

    Raises:
        UserError: As ``ExampleReader.examples``.
    """
    seen: dict[bytes, str] = {}
    found = (item for reader in readers for item in reader.with_split_keys(counts, seen))
    keys: list[SplitKey] = []

    def without_keys() -> Iterator[Example]:
        for example, key in found:
            keys.append(key)
            yield example

    with writing(folder / "examples.arrow", EXAMPLES) as write:
        for examples in _batched(select(without_keys())):
            write(example_batch(examples))
            write_split_keys(folder, keys)
            keys.clear()
    write_split_keys(folder, keys)


def examples_key(readers: Sequence[ExampleReader], fingerprint: dict[str, Any]) -> str:
    """The cache key of the examples: everything that decides which examples there are, and their places."""
    listed = [
        {
            "data": reader.source.sha256 or (reader.source.hub and reader.source.hub.fingerprint),
            "places": [reader.source.given, *(part.given for part in reader.source.parts)],
            "settings": [reader.name, reader.system, reader.limit, reader.invalid, reader.duplicates, reader.coerce],
            "split": [reader.split_by, reader.split, reader.splits],
        }
        for reader in readers
    ]
    return key_of(readers=listed, fingerprint=fingerprint)


def _digest(example: Example) -> bytes:
    return hashlib.blake2b(
        repr((example.context, example.reply, example.tools, example.weight)).encode(), digest_size=16
    ).digest()


def _batched(examples: Iterator[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    characters = 0
    for example in examples:
        batch.append(example)
        characters += sum(map(len, example.texts()))
        if len(batch) >= BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
