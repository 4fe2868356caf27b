"""Stream rows: read, shuffle, encode and batch them while training; memory holds a shuffle buffer and a few windows."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from torch.utils.data import IterableDataset

from llmft.data.batching.sampler import BatchingConfig, PlannedBatchSampler
from llmft.data.preprocessing.arrow_store import encoded_of, sizes_of
from llmft.data.preprocessing.encode import EncodedBatch, Preprocessor
from llmft.data.preprocessing.read_examples import ExampleReader
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.preprocessing.split import HashSplit
from llmft.data.records import Example
from llmft.data.tokenization.codec import EncodedExample
from llmft.utils.errors import UserError
from llmft.utils.text import json_line

# Rows that are encoded and batched together; half of the sampler's window, so that the first batch comes sooner.
WINDOW_ROWS = 1024
# Windows whose batches are counted one by one: a loader reads a few batches ahead of the training.
DETAILED_WINDOWS = 8


class ExampleWindow(NamedTuple):
    """Examples that are encoded and batched together, and the counts of all rows read so far."""

    epoch: int
    examples: list[Example]
    read: int
    unread: dict[str, int]
    rejected: list[dict[str, str]]


@dataclass
class WindowCounts:
    """Counts of one window; a checkpoint holds those of all earlier windows, so that they need not be encoded again.

    Attributes:
        sequences: Encoded examples.
        of_batches: Encoded examples and supervised tokens of each batch; only of the last windows.
    """

    epoch: int
    batches: int
    examples: int
    kept: int
    supervised_tokens: int
    read: int
    unread: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    sequences: int = 0
    of_batches: list[tuple[int, int]] = field(default_factory=list)


class StreamingDataset(IterableDataset[list[list[EncodedExample]]]):
    """Endless batches of (packed) sequences of encoded examples, for ``collate.training_batch``.

    Each epoch reads the files in a shuffled order, shuffles the rows in a buffer, and encodes and batches one window of rows
    at a time. Every batch depends on seed, epoch and the files only; process ``rank`` of ``ranks`` takes every ``ranks``-th.

    Args:
        reader: Reads the source.
        hash_split: Decides which rows are train.
        preprocessor: Encodes examples.
        plan: How encoded examples become batches.
        buffer: Size of the shuffle buffer in rows.
        processes: Worker processes that encode ahead; 0 encodes in this process.
    """

    def __init__(
        self,
        reader: ExampleReader,
        hash_split: HashSplit,
        preprocessor: Preprocessor,
        plan: BatchingConfig,
        buffer: int,
        processes: int,
    ) -> None:
        self.reader, self.hash_split, self.preprocessor = replace(reader, first_only=True), hash_split, preprocessor
        self.plan, self.buffer, self.processes = plan, buffer, processes
        self.rank, self.ranks = 0, 1
        self.start, self.tallies = 0, list[WindowCounts]()
        self.rejected: Path | None = None
        self.listed: set[str] | None = None  # lines of that file, read on first use

    def resume_at(self, batches: int, tallies: Iterable[dict[str, Any]]) -> None:
        """Skip the first batches (of this process): their windows are read again, but not encoded."""
        self.start, self.tallies = batches, [WindowCounts(**tally) for tally in tallies]

    def state(self) -> list[dict[str, Any]]:
        """The counts of all windows, which ``resume_at`` needs besides the number of batches."""
        return [asdict(tally) for tally in self.tallies]

    def __iter__(self) -> Iterator[list[list[EncodedExample]]]:
        skip = self.start * self.ranks
        self.tallies, number = _completed(self.tallies, skip)
        windows = islice(self._windows(), len(self.tallies), None)
        for window, part in self.preprocessor.ahead(windows, lambda window: window.examples, self.processes):
            rows, batches = self._batched(part, len(self.tallies))
            self._count(window, part, [[rows[row] for line in batch for row in line] for batch in batches])
            for batch in batches:
                if number >= skip and number % self.ranks == self.rank:
                    yield [[rows[row] for row in line] for line in batch]
                number += 1

    def _batched(self, part: EncodedBatch, window: int) -> tuple[list[EncodedExample], list[Any]]:
        if not part.rows.num_rows:
            return [], []
        rows = [encoded_of(row) for row in pa.RecordBatch.to_pylist(part.rows)]
        batches = PlannedBatchSampler(sizes_of(part.columns["ids"], part.columns["labels"]), self.plan)
        batches.set_epoch(window)
        return rows, list(batches)

    def _count(self, window: ExampleWindow, part: EncodedBatch, batches: Sequence[Sequence[EncodedExample]]) -> None:
        if part.faults and self.preprocessor.truncation.too_long == "error":
            raise UserError.from_faults("data.too_long=error", part.faults)
        if part.counts.without_stop:
            raise UserError.from_faults("labels", part.counts.faults())
        if window.epoch and not any(tally.kept for tally in self.tallies):
            dropped = sum((Counter(tally.dropped) for tally in self.tallies), Counter(window.unread))
            raise UserError(f"data.path={self.reader.source.given}: no row is left to train on ({_listed(dropped)})")
        counts = part.counts
        counted = (len(batches), counts.examples, counts.kept, counts.supervised_tokens, window.read, window.unread)
        of_batches = [(len(batch), sum(row.supervised for row in batch)) for batch in batches]
        self.tallies.append(WindowCounts(window.epoch, *counted, dict(counts.dropped), counts.sequences, of_batches))
        if len(self.tallies) > DETAILED_WINDOWS:
            self.tallies[-1 - DETAILED_WINDOWS].of_batches = []
        self._list([*window.rejected, *counts.rejected])

    def _list(self, rejected: Sequence[dict[str, str]]) -> None:
        """Append rows to ``rejected.jsonl`` that it does not list yet (from an earlier epoch or before a resume)."""
        if self.rejected is None or not rejected:
            return
        if self.listed is None:
            there = self.rejected.read_text(encoding="utf-8") if self.rejected.exists() else ""
            self.listed = set(there.split("\n"))
        lines = dict.fromkeys(map(json_line, rejected))  # as RowCounts writes them
        new = [line for line in lines if line not in self.listed]
        self.listed.update(new)
        with self.rejected.open("a", encoding="utf-8", errors="backslashreplace") as handle:
            handle.writelines(f"{line}\n" for line in new)

    def _windows(self) -> Iterator[ExampleWindow]:
        epoch = 0
        while True:
            counts, listed, found = RowCounts("", None), 0, False
            draw = random.Random(f"{self.plan.seed} {epoch}")  # noqa: S311 (shuffling, no secret)
            reader = replace(self.reader, source=self._shuffled_files(draw))
            examples = (e for e in reader.examples(counts, {}) if self.hash_split.split_of(e) == "train")
            if self.plan.shuffle:
                examples = shuffled(examples, self.buffer, draw)
            while taken := list(islice(examples, WINDOW_ROWS)):
                found = True
                yield ExampleWindow(epoch, taken, counts.read, dict(counts.dropped), counts.rejected[listed:])
                listed = len(counts.rejected)
            if not found:
                raise UserError(f"data.path={self.reader.source.given}: the stream holds no row to train on")
            epoch += 1

    def _shuffled_files(self, draw: random.Random) -> Any:
        parts = list(self.reader.source.parts)
        if self.plan.shuffle:
            draw.shuffle(parts)
        return replace(self.reader.source, parts=tuple(parts))

    def describe(self, trained: int) -> str:
        """``summary`` as a sentence."""
        n = self.summary(trained)
        dropped = _listed(Counter(n["dropped"]) + Counter(n.get("unread")))
        return (
            f"{n['trained']:,} rows of {n['epochs_begun']} epochs in {n['batches']:,} batches, "
            f"{n['supervised_tokens']:,} supervised tokens; {n.get('rows', 0):,} rows of the files were read"
            + (f"; dropped: {dropped}" if dropped else "")
        )

    def summary(self, trained: int) -> dict[str, Any]:
        """Totals of the training, as JSON.

        Args:
            trained: Batches that were trained by this process; each of the others has trained as many.

        Returns:
            ``batches``, ``trained`` (encoded examples, each turn of a conversation may be one) and ``supervised_tokens`` of these
            batches. ``examples``, ``kept`` and ``dropped`` are those of the windows that they are from, the last one as a whole;
            ``rows`` and ``unread`` those that were read for them in the first epoch.
        """
        trained *= self.ranks
        complete, number = _completed(self.tallies, trained)
        windows = self.tallies[: len(complete) + (number < trained)]
        begun = windows[-1].of_batches[: trained - number] if number < trained else []
        dropped: Counter[str] = Counter()
        for tally in windows:
            dropped.update(tally.dropped)
        first = [tally for tally in windows if tally.epoch == 0]
        read = {"rows": first[-1].read, "unread": first[-1].unread} if first else {}
        return {
            "epochs_begun": len({tally.epoch for tally in windows}),
            "batches": trained,
            "examples": sum(tally.examples for tally in windows),
            "kept": sum(tally.kept for tally in windows),
            "trained": sum(tally.sequences for tally in complete) + sum(rows for rows, _ in begun),
            "supervised_tokens": sum(tally.supervised_tokens for tally in complete)
            + sum(tokens for _, tokens in begun),
            "dropped": dict(dropped),
            **read,
        }


def _listed(dropped: Counter[str]) -> str:
    return ", ".join(f"{count:,} {why}" for why, count in dropped.items())


def shuffled(examples: Iterable[Example], buffer: int, draw: random.Random) -> Iterator[Example]:
    """Shuffle examples with a buffer: each is drawn from the next ``buffer`` examples."""
    remaining = iter(examples)
    held = list(islice(remaining, buffer))
    for example in remaining:
        position = draw.randrange(len(held))
        yield held[position]
        held[position] = example
    draw.shuffle(held)
    yield from held


def _completed(tallies: Sequence[WindowCounts], batches: int) -> tuple[list[WindowCounts], int]:
    """The windows that are completely among the first batches, and their number of batches."""
    count = 0
    for number, tally in enumerate(tallies):
        if count + tally.batches > batches:
            return list(tallies[:number]), count
        count += tally.batches
    return list(tallies), count
