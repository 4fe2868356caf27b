"""A source -> examples in a file, and an account of the rows that are none."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmft.data.preprocessing.arrow_store import EXAMPLES, example_batch, writing
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.records import Example, Row, RowError
from llmft.data.sources import ParsedRow, Source, read
from llmft.data.sources.format_hint import looks_like
from llmft.utils.errors import UserError

# Of a stored batch: so many rows, or so many characters.
BATCH_ROWS = 1000
BATCH_CHARACTERS = 8_000_000
# So many bad rows at the start, all of another format: the file is of that format.
ALL_BAD = 20


@dataclass
class ExampleReader:
    """How the rows of one source become examples: keys of ``conf/data``; ``at_once`` tells the first bad row and not all."""

    source: Source
    name: str
    to_example: Callable[[Row], Example]
    system: str | None
    limit: int | None
    invalid: str
    duplicates: str
    at_once: bool = False

    def examples(self, account: RowCounts, seen: dict[bytes, str]) -> Iterator[Example]:
        """The examples in order; ``account`` counts what was read and dropped, ``seen`` are the places of earlier ones.

        Raises:
            UserError: Rows are broken (``invalid=error``) or repeated (``duplicates=error``), or all are of another format.
        """
        faults: list[str] = []
        hint, found = "", 0
        for located in read(self.source):
            if self.limit is not None and found >= self.limit:
                break
            account.read += 1
            try:
                example = self._example(located)
                self._check_repeated(example, seen)
            except RowError as error:
                repeated = error.field == "duplicate"
                if not (faults or account.dropped):
                    hint = looks_like(located.row, self.name)
                if (self.duplicates if repeated else self.invalid) == "error":
                    faults.append(f"{located.place}: {error}{hint if not faults else ''}")
                account.drop(located.place, error.field, error.reason, "duplicate" if repeated else "invalid")
                account.blank += error.reason.startswith("must not be blank")
                if (hint and not found and account.read == ALL_BAD) or (faults and self.at_once):
                    break
                continue
            found += 1
            yield example
        if hint and not found:
            raise UserError(f"data.path={self.source.given}: {account.first}{hint}")
        if faults:
            raise UserError.from_faults(f"data.path={self.source.given}", faults)

    def _example(self, located: ParsedRow) -> Example:
        if located.fault:
            raise RowError("row", located.fault)
        example = self.to_example(located.row).with_system(self.system)
        number = located.place.rpartition(":")[2]
        return replace(example, id=example.id or number, place=located.place, source=self.name)

    def _check_repeated(self, example: Example, seen: dict[bytes, str]) -> None:
        if self.duplicates == "keep":
            return
        first = seen.setdefault(_digest(example), example.place)
        if first is not example.place:
            raise RowError("duplicate", f"repeats {first}")


def write_examples(
    readings: Sequence[ExampleReader],
    folder: Path,
    account: RowCounts,
    chosen: Callable[[Iterator[Example]], Iterator[Example]] = iter,
) -> None:
    """Write ``examples.arrow`` from one source or several, and count in ``account``; ``chosen`` may stop before the end.

    Raises:
        UserError: As ``Reading.examples``.
    """
    seen: dict[bytes, str] = {}
    found = (example for reading in readings for example in reading.examples(account, seen))
    with writing(folder / "examples.arrow", EXAMPLES) as write:
        for examples in _batched(chosen(found)):
            write(example_batch(examples))


def _digest(example: Example) -> bytes:
    return hashlib.blake2b(repr((example.context, example.answer)).encode(), digest_size=16).digest()


def _batched(examples: Iterator[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    characters = 0
    for example in examples:
        batch.append(example)
        characters += len(example.answer) + sum(len(turn.content) + len(turn.input) for turn in example.context)
        if len(batch) >= BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
