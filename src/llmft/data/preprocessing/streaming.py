"""Rows as they are read -> batches, epoch after epoch without an end; no more than a buffer and some windows is in memory."""

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

# Rows that are encoded and batched together; half of what other batching chooses among, so that the first batch is soon there.
WINDOW_ROWS = 1024


class ExampleWindow(NamedTuple):
    """Examples that are encoded and batched together, and what reading them has come to so far."""

    epoch: int
    examples: list[Example]
    read: int
    unread: dict[str, int]
    rejected: list[dict[str, str]]


@dataclass
class WindowCounts:
    """What became of a window: of a stream that goes on, the windows behind it are counted by these alone."""

    epoch: int
    batches: int
    examples: int
    kept: int
    supervised_tokens: int
    read: int
    unread: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


class StreamingDataset(IterableDataset[list[list[EncodedExample]]]):
    """Batches of lines of rows, for ``collate.training_batch``.

    Each epoch reads the source's files in an order of its own, mixes the rows in a buffer, and takes windows of them, which
    are encoded whole and batched by the plan. Seed, epoch and the files alone decide every batch; process ``rank`` of
    ``ranks`` takes every ``ranks``-th of them.

    Args:
        reading: Of the source.
        held_out: Which rows are not trained on.
        encoding: How examples become rows.
        plan: How rows become batches.
        buffer: Rows among which the next one is drawn.
        processes: How many encode ahead; 0: this one does, when a window is needed.
    """

    def __init__(
        self,
        reading: ExampleReader,
        held_out: HashSplit,
        encoding: Preprocessor,
        plan: BatchingConfig,
        buffer: int,
        processes: int,
    ) -> None:
        self.reading, self.held_out, self.encoding = replace(reading, at_once=True), held_out, encoding
        self.plan, self.buffer, self.processes = plan, buffer, processes
        self.rank, self.ranks = 0, 1
        self.start, self.tallies = 0, list[WindowCounts]()
        self.rejected: Path | None = None
        self.listed: set[str] | None = None  # lines of that file, once they are needed

    def resume_at(self, batches: int, tallies: Iterable[dict[str, Any]]) -> None:
        """Leave out the first batches (of this process): windows behind them are read again, but not encoded."""
        self.start, self.tallies = batches, [WindowCounts(**tally) for tally in tallies]

    def state(self) -> list[dict[str, Any]]:
        """What ``resume_at`` needs besides the number of batches."""
        return [asdict(tally) for tally in self.tallies]

    def __iter__(self) -> Iterator[list[list[EncodedExample]]]:
        skip = self.start * self.ranks
        self.tallies, number = _behind(self.tallies, skip)
        windows = islice(self._windows(), len(self.tallies), None)
        for window, part in self.encoding.ahead(windows, lambda window: window.examples, self.processes):
            rows, batches = self._batched(part, len(self.tallies))
            self._count(window, part, len(batches))
            for batch in batches:
                if number >= skip and number % self.ranks == self.rank:
                    yield [[rows[row] for row in line] for line in batch]
                number += 1

    def _batched(self, part: EncodedBatch, window: int) -> tuple[list[EncodedExample], Any]:
        if not part.rows.num_rows:
            return [], []
        rows = [encoded_of(row) for row in pa.RecordBatch.to_pylist(part.rows)]
        batches = PlannedBatchSampler(sizes_of(part.facts["ids"], part.facts["labels"]), self.plan)
        batches.set_epoch(window)
        return rows, batches

    def _count(self, window: ExampleWindow, part: EncodedBatch, batches: int) -> None:
        if part.faults and self.encoding.fitting.too_long == "error":
            raise UserError.from_faults("data.too_long=error", part.faults)
        if part.account.without_stop:
            raise UserError.from_faults("labels", part.account.faults())
        if window.epoch and not any(tally.kept for tally in self.tallies):
            raise UserError(f"data.path={self.reading.source.given}: no row is left to train on ({self.summary()})")
        account = part.account
        counted = (batches, account.examples, account.kept, account.supervised_tokens, window.read, window.unread)
        self.tallies.append(WindowCounts(window.epoch, *counted, dict(account.dropped)))
        self._list([*window.rejected, *account.rejected])

    def _list(self, rejected: Sequence[dict[str, str]]) -> None:
        """Add rows to ``rejected.jsonl`` that are not there yet (from the first rows, an epoch before, or before a resume)."""
        if self.rejected is None or not rejected:
            return
        if self.listed is None:
            there = self.rejected.read_text(encoding="utf-8") if self.rejected.exists() else ""
            self.listed = set(there.split("\n"))
        lines = dict.fromkeys(map(json_line, rejected))  # as the account writes them
        new = [line for line in lines if line not in self.listed]
        self.listed.update(new)
        with self.rejected.open("a", encoding="utf-8", errors="backslashreplace") as handle:
            handle.writelines(f"{line}\n" for line in new)

    def _windows(self) -> Iterator[ExampleWindow]:
        epoch = 0
        while True:
            account, listed, found = RowCounts("", None), 0, False
            draw = random.Random(f"{self.plan.seed} {epoch}")  # noqa: S311 (an order, no secret)
            reading = replace(self.reading, source=self._mixed_files(draw))
            examples = (e for e in reading.examples(account, {}) if self.held_out.split_of(e) == "train")
            if self.plan.shuffle:
                examples = shuffled(examples, self.buffer, draw)
            while taken := list(islice(examples, WINDOW_ROWS)):
                found = True
                yield ExampleWindow(epoch, taken, account.read, dict(account.dropped), account.rejected[listed:])
                listed = len(account.rejected)
            if not found:
                raise UserError(f"data.path={self.reading.source.given}: the stream holds no row to train on")
            epoch += 1

    def _mixed_files(self, draw: random.Random) -> Any:
        parts = list(self.reading.source.parts)
        if self.plan.shuffle:
            draw.shuffle(parts)
        return replace(self.reading.source, parts=tuple(parts))

    def told(self) -> str:
        """``summary`` in words."""
        n = self.summary()
        left = ", ".join(
            f"{count:,} {why}" for why, count in (Counter(n["dropped"]) + Counter(n.get("unread"))).items()
        )
        return (
            f"{n['examples']:,} rows of {n['epochs_begun']} epochs in {n['batches']:,} batches, "
            f"{n['supervised_tokens']:,} supervised tokens; {n.get('rows', 0):,} rows of the files were read"
            + (f"; left out: {left}" if left else "")
        )

    def summary(self) -> dict[str, Any]:
        """What the windows so far have come to, as JSON; rows that could not be read are the first epoch's."""
        dropped: Counter[str] = Counter()
        for tally in self.tallies:
            dropped.update(tally.dropped)
        first = [tally for tally in self.tallies if tally.epoch == 0]
        totals = {
            name: sum(getattr(tally, name) for tally in self.tallies)
            for name in ("batches", "examples", "kept", "supervised_tokens")
        }
        read = {"rows": first[-1].read, "unread": first[-1].unread} if first else {}
        return {
            "epochs_begun": len({tally.epoch for tally in self.tallies}),
            **totals,
            "dropped": dict(dropped),
            **read,
        }


def shuffled(examples: Iterable[Example], buffer: int, draw: random.Random) -> Iterator[Example]:
    """The examples, each drawn from the next ``buffer`` ones that are still to come."""
    coming = iter(examples)
    held = list(islice(coming, buffer))
    for example in coming:
        place = draw.randrange(len(held))
        yield held[place]
        held[place] = example
    draw.shuffle(held)
    yield from held


def _behind(tallies: Sequence[WindowCounts], batches: int) -> tuple[list[WindowCounts], int]:
    """The windows that are wholly among the first batches, and how many batches they have."""
    count = 0
    for number, tally in enumerate(tallies):
        if count + tally.batches > batches:
            return list(tallies[:number]), count
        count += tally.batches
    return list(tallies), count
