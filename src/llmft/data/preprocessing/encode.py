"""Examples in a file -> encoded rows in a file, in batches, by several processes; the same for any number of them."""

import functools
import gc
import hashlib
import multiprocessing
import os
import re
import signal
import sys
import unicodedata
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from llmft.data.preprocessing.arrow_store import (
    ENCODED,
    FactFiles,
    batches_in,
    columns_of,
    encoded_batch,
    read_batch,
    writing,
)
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.preprocessing.truncation import TooLongError, Truncation
from llmft.data.records import Example
from llmft.data.tokenization.codec import Codec, EncodedExample
from llmft.data.tokenization.template import Prompt
from llmft.utils.distributed import end_with_parent
from llmft.utils.errors import UserError

W = TypeVar("W")

# Fewer rows are encoded before other processes would have started.
ROWS_ALONE = 4000
# So many batches for each process wait to be encoded or to be written: enough that none has nothing to do.
AHEAD = 4
# Control characters but line ends and tabs, invisible ones (not those that join letters), private ones, U+FFFD.
ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffd\ue000-\uf8ff]"
)


class EncodedBatch(NamedTuple):
    """What became of one batch of examples."""

    rows: pa.RecordBatch
    facts: dict[str, np.ndarray]
    account: RowCounts
    faults: list[str]


@dataclass
class Preprocessor:
    """How examples become rows: what a worker needs."""

    examples: Path
    codec: Codec
    fitting: Truncation

    def write(self, folder: Path, account: RowCounts, processes: int | None) -> None:
        """Write ``rows.arrow`` and the rows' numbers, and count in ``account`` what became of the examples.

        Args:
            folder: Where the files go.
            account: Is added to.
            processes: How many encode; None for one per core where there are many rows.

        Raises:
            UserError: A row is over a budget (``too_long=error``).
        """
        batches, examples = batches_in(self.examples)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = min(batches, processes or (cores if examples > ROWS_ALONE else 1))
        faults: list[str] = []
        numbers = FactFiles(folder)
        with writing(folder / "rows.arrow", ENCODED) as write:
            first = 0
            with closing(self._in_order("part", range(batches), processes if processes > 1 else 0)) as parts:
                for part in parts:
                    part.facts["example"] += first
                    first += part.account.examples
                    write(part.rows)
                    numbers.write(part.facts)
                    account.add(part.account)
                    faults += part.faults
        numbers.close()
        if faults and self.fitting.too_long == "error":
            raise UserError.from_faults("data.too_long=error", faults)

    def ahead(
        self, windows: Iterable[W], examples: Callable[[W], list[Example]], processes: int
    ) -> Iterator[tuple[W, EncodedBatch]]:
        """Windows and what their examples became, in order; with ``processes`` of them so many are encoded ahead."""
        held: deque[W] = deque()

        def given() -> Iterator[list[Example]]:
            for window in windows:
                held.append(window)
                yield examples(window)

        with closing(self._in_order("made", given(), processes)) as parts:
            for part in parts:
                yield held.popleft(), part

    def _in_order(self, method: str, items: Iterable[Any], processes: int) -> Generator[EncodedBatch]:
        if not processes:
            yield from (getattr(self, method)(item) for item in items)
            return
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        pool = ProcessPoolExecutor(processes, context, _begin, (self,))
        try:
            yield from _in_order(pool, method, items, AHEAD * processes)
        except BrokenProcessPool:
            raise UserError(
                f"data.processes={processes}: one of them was killed, mostly for want of memory; try data.processes=1"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def part(self, number: int) -> EncodedBatch:
        """Encode the examples of one record batch."""
        return self.made(read_batch(self.examples, number))

    def made(self, examples: Sequence[Example]) -> EncodedBatch:
        """Encode some examples."""
        account, rows, facts, faults = RowCounts("", None), [], [], []
        account.examples = len(examples)
        render = self.codec.template.render
        parts = [[(p, render(p.context)) for p in self.codec.parts(example)] for example in examples]
        self.codec.look_ahead([(prompt, part.answer) for group in parts for part, prompt in group])
        for index, group in enumerate(parts):
            kept = 0
            for part, prompt in group:
                made = self._row(part, prompt, account, faults, alone=len(group) == 1)
                if made:
                    rows.append(made[0])
                    facts.append({**made[1], "example": index})
                    kept += 1
            if kept:
                account.kept += 1
            elif len(group) > 1:
                account.drop(group[0][0].place, "row", "none of its turns can be trained", "none of its turns fits")
        self.codec.forget()
        account.count(rows, self.codec.tokenizer.bos_token_id, self.codec.stop_id)
        return EncodedBatch(encoded_batch(rows), columns_of(facts), account, faults)

    def _row(
        self, example: Example, prompt: Prompt, account: RowCounts, faults: list[str], *, alone: bool
    ) -> tuple[EncodedExample, dict[str, Any]] | None:
        try:
            fitted = self.fitting.fit(example, self.codec, prompt)
        except TooLongError as error:
            faults.append(f"{example.place}: the {error.part} {error}")
            account.over[error.part] += 1
            _leave_out(account, example, error.part, str(error), f"{error.part} too long", alone=alone)
            return None
        row = fitted.row
        if not row.supervised:
            why = "none of its tokens would be trained"
            _leave_out(account, example, "answer", why, "nothing to learn", alone=alone)
            return None
        if self.codec.names_control(example):
            account.look(example, self.codec.template.controls)
        if not (fitted.trimmed or row.cut):
            return row, {**_facts(example, row), "prompt_tokens": fitted.prompt_tokens}
        account.over["prompt"] += bool(fitted.trimmed)
        account.over["answer"] += row.cut
        account.trim(example.place, fitted.trimmed, row.cut, fitted.prompt_tokens, row.answer_length, self.fitting)
        return row, {**_facts(example, row), "prompt_tokens": fitted.prompt_tokens}


def _leave_out(account: RowCounts, example: Example, field: str, reason: str, why: str, *, alone: bool) -> None:
    """Drop a row; of a conversation of several rows only this one, which is listed and counted apart."""
    if alone:
        account.drop(example.place, field, reason, why)
    else:
        account.parts_dropped[why] += 1
        account.note(example.place, field, reason, "drop one turn")


def _facts(example: Example, row: EncodedExample) -> dict[str, Any]:
    prompt = "\0".join(f"{turn.role}\1{turn.content}\2{turn.input}" for turn in example.context)
    asked, asked_like = hash_of(prompt), hash_of(_normal(prompt))
    return {
        "ids": len(row.input_ids),
        "labels": 0 if row.joined else len(row.labels),
        "answer_tokens": row.answer_length,
        "prompt_characters": sum(len(turn.content) + len(turn.input) for turn in example.context),
        "answer_characters": len(example.answer),
        "source": source_hash(example.source),
        "prompt": asked,
        "prompt_like": asked_like,
        "row": hash_of(f"{asked}\0{example.answer}"),
        "row_like": hash_of(f"{asked_like}\0{_normal(example.answer)}"),
        "odd": bool(
            ODD.search(example.answer) or any(ODD.search(t.content) or ODD.search(t.input) for t in example.context)
        ),
        "lost": bool(row.lost),
    }


def _normal(text: str) -> str:
    """A text without what hardly makes it another: case, width, and how much white space stands where."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold().split())


@functools.lru_cache(4)  # the name of a set is asked for at every row
def source_hash(name: str) -> int:
    """As ``hash_of``."""
    return hash_of(name)


def hash_of(text: str) -> int:
    """64 bits that two texts hardly share: among 4 million the chance is 1 in 2 million."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _in_order(pool: ProcessPoolExecutor, method: str, items: Iterable[Any], width: int) -> Iterator[EncodedBatch]:
    """The parts in the order of their items; no more than ``width`` are asked for and not yet taken."""
    waiting: deque[Future[EncodedBatch]] = deque()
    for item in items:
        waiting.append(pool.submit(_part, method, item))
        if len(waiting) >= width:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_encoding: Preprocessor


def _begin(encoding: Preprocessor) -> None:
    """Set up a worker: Ctrl-C is the parent's business, and without a parent there is nothing to do."""
    global _encoding
    _encoding = encoding
    gc.freeze()  # what the parent has loaded is not looked through again and again, nor copied for that
    gc.set_threshold(50_000, 20, 100)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()


def _part(method: str, item: Any) -> EncodedBatch:
    return getattr(_encoding, method)(item)
