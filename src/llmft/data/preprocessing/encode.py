"""Encode the examples of a file in batches, by several processes; the result is the same for any number of them.

Worker processes import this module and what it needs: neither torch nor Lightning.
"""

import gc
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from llmft.data.preprocessing.arrow_store import (
    ENCODED,
    ColumnFiles,
    batches_in,
    columns_of,
    encoded_batch,
    read_batch,
    writing,
)
from llmft.data.preprocessing.row_columns import row_columns
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.preprocessing.truncation import TooLongError, Truncation
from llmft.data.records import Example
from llmft.data.tokenization.codec import Codec, EncodedExample
from llmft.data.tokenization.template import Prompt, PromptTemplate
from llmft.utils.distributed import end_with_parent
from llmft.utils.errors import UserError
from llmft.utils.signals import ignored_in_worker

W = TypeVar("W")

# Up to this many rows, one process is done before others would have started.
SINGLE_PROCESS_ROWS = 4000
# Batches per process that are submitted ahead, so that no process is idle.
AHEAD = 4


class EncodedBatch(NamedTuple):
    """One batch of examples after encoding: rows, their columns of numbers, counts, and faults (``too_long=error``)."""

    rows: pa.RecordBatch
    columns: dict[str, np.ndarray]
    counts: RowCounts
    faults: list[str]


@dataclass
class Preprocessor:
    """Encodes the examples of a file; sent to every worker process."""

    examples: Path
    codec: Codec
    truncation: Truncation

    def write(self, folder: Path, counts: RowCounts, processes: int | None) -> None:
        """Write ``rows.arrow`` and the columns of numbers.

        Args:
            folder: Where the files go.
            counts: Kept, dropped and trimmed rows are added here.
            processes: Number of worker processes; None for one per core if there are many rows.

        Raises:
            UserError: A row is over a budget (``too_long=error``).
        """
        batches, examples = batches_in(self.examples)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = min(batches, processes or (cores if examples > SINGLE_PROCESS_ROWS else 1))
        faults: list[str] = []
        columns = ColumnFiles(folder)
        with writing(folder / "rows.arrow", ENCODED) as write:
            first = 0
            with closing(self._map("encode_batch", range(batches), processes if processes > 1 else 0)) as encoded:
                for batch in encoded:
                    batch.columns["example"] += first
                    first += batch.counts.examples
                    write(batch.rows)
                    columns.write(batch.columns)
                    counts.add(batch.counts)
                    faults += batch.faults
        columns.close()
        if faults and self.truncation.too_long == "error":
            raise UserError.from_faults("data.too_long=error", faults)

    def ahead(
        self, windows: Iterable[W], examples: Callable[[W], list[Example]], processes: int
    ) -> Iterator[tuple[W, EncodedBatch]]:
        """Yield each window with its encoded examples, in order; worker processes (if any) encode ahead."""
        pending: deque[W] = deque()

        def submitted() -> Iterator[list[Example]]:
            for window in windows:
                pending.append(window)
                yield examples(window)

        with closing(self._map("encode_examples", submitted(), processes)) as encoded:
            for batch in encoded:
                yield pending.popleft(), batch

    def _map(self, method: str, items: Iterable[Any], processes: int) -> Generator[EncodedBatch]:
        if not processes:
            yield from (getattr(self, method)(item) for item in items)
            return
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        pool = ProcessPoolExecutor(processes, context, _init_worker, (self,))
        try:
            yield from _map_in_order(pool, method, items, AHEAD * processes)
        except BrokenProcessPool:
            raise UserError(
                f"data.processes={processes}: one of them was killed, probably out of memory; try data.processes=1"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def encode_batch(self, number: int) -> EncodedBatch:
        """Encode the examples of one record batch."""
        return self.encode_examples(read_batch(self.examples, number))

    def encode_examples(self, examples: Sequence[Example]) -> EncodedBatch:
        """Encode examples."""
        counts, rows, columns, faults = RowCounts("", None), [], [], []
        counts.examples = len(examples)
        parts = [self._parts(example) for example in examples]
        try:
            self.codec.look_ahead([(prompt, part.reply) for group in parts for part, prompt in group])
        except UserError:
            for part, prompt in chain.from_iterable(parts):
                with _named(part):
                    self.codec.texts(prompt, part.reply)
            raise
        for index, group in enumerate(parts):
            kept = 0
            for part, prompt in group:
                encoded = self._encode(part, prompt, counts, faults, only=len(group) == 1)
                if encoded:
                    rows.append(encoded[0])
                    columns.append({**encoded[1], "example": index})
                    kept += 1
            counts.split_conversations += len(group) > 1 and self.codec.joins_turns
            if kept:
                counts.kept += 1
            elif len(group) > 1:
                counts.drop(group[0][0].place, "row", "none of its turns can be trained", "none of its turns fits")
        self.codec.forget()
        counts.count(rows, self.codec.tokenizer.bos_token_id, self.codec.stop_ids)
        return EncodedBatch(encoded_batch(rows), columns_of(columns), counts, faults)

    def _parts(self, example: Example) -> list[tuple[Example, Prompt]]:
        """The examples that an example is split into, with their prompts."""
        with _named(example):
            return [(part, self.codec.template.render(part.context, part.tools)) for part in self.codec.parts(example)]

    def _encode(
        self, example: Example, prompt: Prompt, counts: RowCounts, faults: list[str], *, only: bool
    ) -> tuple[EncodedExample, dict[str, Any]] | None:
        try:
            fitted = self.truncation.fit(example, self.codec, prompt)
        except TooLongError as error:
            faults.append(f"{example.place}: the {error.part} {error}")
            counts.over[error.part] += 1
            _drop(counts, example, error.part, str(error), f"{error.part} too long", only=only)
            return None
        row = fitted.row
        if not row.supervised:
            why = "none of its tokens would be trained"
            _drop(counts, example, "answer", why, "nothing to learn", only=only)
            return None
        counts.leave_out(_left_out(self.codec.template, example))
        if self.codec.names_control(example):
            counts.count_controls(self.codec.template.typed_texts(example), self.codec.template.controls)
        if not (fitted.trimmed or row.cut):
            return row, {**row_columns(example, row), "prompt_tokens": fitted.prompt_tokens}
        counts.over["prompt"] += bool(fitted.trimmed)
        counts.over["answer"] += row.cut
        counts.trim(example.place, fitted.trimmed, row.cut, fitted.prompt_tokens, row.answer_length, self.truncation)
        return row, {**row_columns(example, row), "prompt_tokens": fitted.prompt_tokens}


def _drop(counts: RowCounts, example: Example, field: str, reason: str, why: str, *, only: bool) -> None:
    """Drop an encoded row; if its example has several (one per turn), only this turn is dropped and counted as such."""
    if only:
        counts.drop(example.place, field, reason, why)
    else:
        counts.parts_dropped[why] += 1
        counts.note(example.place, field, reason, "drop one turn")


@contextmanager
def _named(example: Example) -> Iterator[None]:
    """Say which row a template refuses."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{example.place}: {error}") from None


def _left_out(template: PromptTemplate, example: Example) -> list[str]:
    """What the prompt template does not write of an example: the schemas of its tools, and the reasoning of its answer."""
    used = template.for_tools(example.tools)
    reasons = bool(used.prepared(example.reply).reasoning)
    if not (example.tools or reasons):
        return []
    found = ["tools"] * (bool(example.tools) and not used.traits.tools)
    shown = template.reasoning == "keep" or used.traits.shows_reasoning(calls=bool(example.tool_calls))
    return [*found, *["reasoning"] * (reasons and not shown)]


def _map_in_order(pool: ProcessPoolExecutor, method: str, items: Iterable[Any], width: int) -> Iterator[EncodedBatch]:
    """Yield the results in the order of the items, with at most ``width`` of them submitted ahead."""
    waiting: deque[Future[EncodedBatch]] = deque()
    for item in items:
        waiting.append(pool.submit(_call, method, item))
        if len(waiting) >= width:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_preprocessor: Preprocessor


def _init_worker(preprocessor: Preprocessor) -> None:
    """Set up a worker process: the parent handles Ctrl-C, and the worker ends with its parent."""
    global _preprocessor
    _preprocessor = preprocessor
    gc.freeze()  # objects of the parent are neither collected nor copied on write
    gc.set_threshold(50_000, 20, 100)
    ignored_in_worker()
    end_with_parent()


def _call(method: str, item: Any) -> EncodedBatch:
    return getattr(_preprocessor, method)(item)
