"""The raw rows of a source -> validated examples in a file, and counts of the rows that were dropped."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmft.data.preprocessing.arrow_store import EXAMPLES, example_batch, writing
from llmft.data.preprocessing.cache import key_of
from llmft.data.preprocessing.refusals import Refusals
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.preprocessing.split_keys import (
    FREE,
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
from llmft.utils.errors import UserError

# Maximum rows and characters of a stored record batch.
BATCH_ROWS = 1000
BATCH_CHARACTERS = 8_000_000


@dataclass
class ExampleReader:
    """Reads the rows of one source as examples; the fields are keys of ``conf/data``.

    Attributes:
        first_only: Whether to raise at the first invalid row; else all of them are reported at the end.
        split: The split of all its rows, where a file is one; None where ``split_by`` decides.
        splits: All splits, which are stored as their numbers.
        coerce: Whether numbers are read as text.
        section: The section of the config that it has its keys from: ``data``, or ``data.sets.NAME`` of a mix.
        own_files: The splits that have files of their own.
    """

    source: Source
    name: str
    to_example: Callable[[Row], Example]
    system: str | None
    limit: int | None
    invalid: str
    duplicates: str
    first_only: bool = False
    split_by: str = "position"
    split: str | None = None
    splits: Sequence[str] = SPLITS
    coerce: bool = False
    section: str = "data"
    own_files: Collection[str] = ()

    @property
    def key(self) -> str:
        """The key that names the files, for errors."""
        key = own_file_key(self.split) if self.split else "data.path"
        return key.replace("data", self.section, 1)

    @property
    def is_alone(self) -> bool:
        """Whether another data set could read these rows in its place."""
        return self.split is None and self.section == "data"

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
        refused = Refusals(f"{self.key}={self.source.given}", self.name if self.is_alone else None)
        for located in read(self.source, counts.tell):
            if self.limit is not None and refused.kept >= self.limit:
                break
            counts.read += 1
            refused.read += 1
            try:
                example, key, ignored = self._example(located)
                self._check_repeated(example, seen)
            except NotTrainedError as error:
                counts.drop(located.place, error.field, error.reason, error.why)
                continue
            except RowError as error:
                self._refuse(located, error, refused, counts)
                if refused.ends_reading or (refused.forbidden and self.first_only):
                    break
                continue
            refused.kept += 1
            counts.ignore(ignored)
            yield example, key
        if refused.forbidden or refused.others():
            raise refused.error(first_only=self.first_only)

    def _refuse(self, located: ParsedRow, error: RowError, refused: Refusals, counts: RowCounts) -> None:
        """Count a row that is refused, or dropped if ``invalid`` and ``duplicates`` say so."""
        repeated = error.field == "duplicate"
        counts.drop(located.place, error.field, error.reason, "duplicate" if repeated else "invalid", error.kind)
        counts.blank += error.reason.startswith("must not be blank")
        if repeated or isinstance(error, SplitFieldError):
            refused.other_format = False
        forbidden = (self.duplicates if repeated else self.invalid) == "error"
        refused.add(located, error, self._key_for(located, error) if forbidden else "", forbidden=forbidden)

    def _key_for(self, located: ParsedRow, error: RowError) -> str:
        """The key that lets a refused row pass, and what it does; empty if there is none."""
        if error.field == "duplicate":
            return "data.duplicates=drop leaves repeats out, keep trains on them"
        if self.coerce or located.fault:
            return ""
        try:
            replace(self, coerce=True)._example(located)
        except RowError:
            return ""
        return "data.coerce=true reads numbers as text"

    def _example(self, located: ParsedRow) -> tuple[Example, SplitKey, Collection[str]]:
        """The example of a row, its split key, and the names of the fields that its data set did not read."""
        if located.fault:
            raise RowError("row", located.fault)
        row = TrackedRow(located.row) if type(located.row) is dict else located.row
        with coerced(self.coerce):
            example = self.to_example(row).with_system(self.system)
        number = located.place.rpartition(":")[2]
        example = replace(example, id=example.id or number, place=located.place, source=self.name)
        name = self.split or located.split
        key = split_key_of(example, row, self.split_by, None if name is None else self.splits.index(name))
        check_named(self, located, key)
        return example, key, row.unread() if isinstance(row, TrackedRow) else ()

    def _check_repeated(self, example: Example, seen: dict[bytes, str]) -> None:
        if self.duplicates == "keep":
            return
        first = seen.setdefault(_digest(example), example.place)
        if first is not example.place:
            raise RowError("duplicate", f"repeats {first}")


def check_named(reader: ExampleReader, row: ParsedRow, key: SplitKey) -> None:
    """Refuse a row whose file or field names its split where that cannot count.

    Raises:
        UserError: It is in a file of held-out rows, its split has a file of its own, or the rows are streamed.
    """
    if row.split and reader.split is not None:
        everything = f"{reader.section}.path=FILE reads them all"
        raise UserError(
            f"{row.place}: {reader.key} is a file of one split, but this one names its splits; {everything}"
        )
    if row.split and reader.first_only:
        raise UserError(f"{row.place}: names its split, which a stream does not follow; use data.streaming=false")
    if reader.split is None and key.split != FREE and (name := reader.splits[key.split]) in reader.own_files:
        other, key_of_file = "" if row.split else ", or data.split_by=prompt", replace(reader, split=name).key
        raise UserError(f"{row.place}: names its split, {name}, which {key_of_file} has too; {key_of_file}=null{other}")


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
            "layout": reader.source.layout.settings(),
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
