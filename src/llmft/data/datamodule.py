"""InstructionDataModule: rows of one data set -> validated examples -> encoded rows -> loaders."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from llmft.data.batching.collate import PackedDataset, training_batch
from llmft.data.batching.sampler import BatchingConfig, PlannedBatchSampler
from llmft.data.preprocessing.arrow_store import ArrowTable, Examples, RowColumns, Rows
from llmft.data.preprocessing.audit import Audit, leaks
from llmft.data.preprocessing.cache import Cache, codec_key, key_of, meaning_of
from llmft.data.preprocessing.encode import Preprocessor
from llmft.data.preprocessing.read_examples import ExampleReader, write_examples
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.preprocessing.split import HashSplit, split_rows, spread
from llmft.data.preprocessing.streaming import StreamingDataset
from llmft.data.preprocessing.truncation import Truncation
from llmft.data.records import Example, Row
from llmft.data.sources import Source, find
from llmft.data.tokenization.codec import Codec
from llmft.utils.distributed import end_with_parent
from llmft.utils.errors import UserError


class InstructionDataModule:
    """Base of the data sets; a data set adds ``to_example`` and nothing else. The arguments are the keys of ``conf/data``.

    No LightningDataModule: the trainer gets the loaders, and ``preview`` need not wait for Lightning's import.
    """

    def __init__(
        self,
        *,
        name: str,
        path: str | Sequence[str],
        sha256: str | None,
        revision: str | None,
        subset: str | None,
        hub_split: str,
        system: str | None,
        prompt: str | None,
        batch_size: int,
        limit: int | None,
        max_prompt_tokens: int,
        max_answer_tokens: int,
        too_long: str,
        invalid: str,
        duplicates: str,
        leakage: str,
        cache: str | bool | None,
        processes: int | None,
        split: Mapping[str, float | None],
        split_by: str,
        shuffle: bool,
        batching: str,
        tokens_per_batch: int,
        pack_tokens: int | None,
        num_workers: int,
        streaming: bool,
        stream_buffer: int,
        stream_held_out: int,
        train_on: str,
        train_on_turns: str,
        seed: int,
    ) -> None:
        self.name = name
        hub = {"revision": revision, "subset": subset, "hub_split": hub_split, "streaming": streaming}
        self.source = self.found(path, name, sha256=sha256, **hub)
        named = {"prompt": max_prompt_tokens, "answer": max_answer_tokens}
        self.account = RowCounts(self.source.given, self.source.sha256, named)
        self.fitting = Truncation(max_prompt_tokens, max_answer_tokens, too_long)
        budgets = (max_prompt_tokens, max_answer_tokens)
        self.plan = BatchingConfig(batching, batch_size, tokens_per_batch, pack_tokens, budgets, shuffle, seed)
        self.reading = ExampleReader(self.source, name, self.to_example, system, limit, invalid, duplicates, streaming)
        self.split, self.split_by, self.leakage, self.num_workers = split, split_by, leakage, num_workers
        self.cache, self.processes = Cache("off" if streaming else cache), processes
        self.streaming, self.stream_buffer = streaming, stream_buffer
        self.held_out = HashSplit(split, seed, stream_held_out)
        self.stream: StreamingDataset | None = None
        self.rank, self.ranks = 0, 1
        self.encoded: dict[str, Rows] = {}
        self.planned: dict[Any, PlannedBatchSampler] = {}
        self.audit: Audit | None = None
        self.pad_id = 0

    @staticmethod
    @abstractmethod
    def to_example(row: Row) -> Example:
        """What a row means.

        Raises:
            RowError: A field is missing or holds something else than it should.
        """

    def found(self, path: str | Sequence[str], name: str, **where: Any) -> Source:
        """Where the rows come from."""
        return find(path, name, **where)

    def readings(self) -> list[ExampleReader]:
        """What is read, in order: one source, but for a mix of sets."""
        return [self.reading]

    def meaning(self) -> dict[str, Any]:
        """What decides what a row means, for the cache's key; a set with settings of its own adds them."""
        return {"class": type(self).__qualname__, "code": meaning_of(type(self))}

    def read(self) -> None:
        """Read and validate the rows, before any model is loaded; of a stream its first rows of each split.

        Raises:
            UserError: Rows are broken (``invalid=error``) or repeated (``duplicates=error``), or none is left.
        """
        self.examples_key = self._examples_key()

        def build(folder: Path) -> None:
            account = RowCounts(self.source.given, self.source.sha256)
            write_examples(self.readings(), folder, account, self.held_out.first if self.streaming else iter)
            account.save(folder)

        folder = self.cache.folder("examples", self.examples_key, build)
        self.account.add_saved(folder)
        table = ArrowTable(folder / "examples.arrow")
        self.examples = Examples(table, np.arange(len(table)))
        self._check_left(len(table))

    def encode(self, codec: Codec) -> None:
        """Encode every example within its budgets and deal the rows out to train, test and val.

        Raises:
            UserError: A row is over a budget (``too_long=error``), prompts leak between splits (``leakage=error``), or no row
                is left to train on.
        """

        def build(folder: Path) -> None:
            account = RowCounts(self.source.given, self.source.sha256)
            encoding.write(folder, account, self.processes)
            account.save(folder)

        encoding = Preprocessor(self.examples.table.file, codec, self.fitting)
        if self.streaming:
            rest = (encoding, self.plan, self.stream_buffer, self.num_workers)
            self.stream = StreamingDataset(self.reading, self.held_out, *rest)

        key = key_of(examples=self.examples_key, codec=codec_key(codec), fitting=asdict(self.fitting))
        folder = self.cache.folder("rows", key, build)
        self.account.add_saved(folder)
        self.table, self.facts = ArrowTable(folder / "rows.arrow"), RowColumns(folder)
        self._check_left(len(self.table))
        self.pad_id = codec.tokenizer.pad_token_id
        self._deal()

    def _deal(self) -> None:
        owners = self.facts["example"]
        groups = np.concatenate([[0], np.flatnonzero(np.diff(owners)) + 1])  # the rows of one example stay together
        sizes = np.diff(np.append(groups, len(owners)))
        dealt = (
            self.held_out.dealt(owners[groups])
            if self.streaming
            else split_rows(len(groups), self.split, self.split_by, self.plan.seed)
        )
        chosen = {name: spread(groups[part], sizes[part]) for name, part in dealt.items()}
        self.account.unused = len(groups) - sum(map(len, dealt.values()))
        if self.leakage != "warn":
            chosen = self._without_leaks(chosen, owners)
        self.planned = {}
        self.chosen = {name: self.weighted(rows) if name == "train" else rows for name, rows in chosen.items()}
        self.encoded = {name: Rows(self.table, rows) for name, rows in self.chosen.items()}
        budgets = {"prompt": self.fitting.max_prompt, "answer": self.fitting.max_answer}
        self.audit = Audit.of(self.facts, chosen, budgets)

    def weighted(self, rows: np.ndarray) -> np.ndarray:
        """The training rows as often as they are trained in an epoch; a mix of sets does not leave them as they are."""
        return rows

    def _without_leaks(self, chosen: dict[str, np.ndarray], owners: np.ndarray) -> dict[str, np.ndarray]:
        leaked = leaks(self.facts["prompt"], chosen)
        if self.leakage == "error" and any(map(len, leaked.values())):
            faults = [
                f"{self.table.row(row)['place']}: its prompt is also in train"
                for part in leaked.values()
                for row in part
            ]
            raise UserError.from_faults("data.leakage=error", faults)
        for name, rows in leaked.items():
            gone = np.isin(owners[chosen[name]], owners[rows])  # with all turns of its conversation
            places = dict.fromkeys(self.table.row(row)["place"] for row in chosen[name][gone])
            for place in places:
                self.account.drop(place, "prompt", f"is in train and in {name}", f"in train and {name}")
            self.account.kept -= len(places)
            chosen[name] = chosen[name][~gone]
            if len(places) and not len(chosen[name]):
                raise UserError(
                    f"data.leakage=drop: every row of {name} has its prompt in train too; no row of {name} is left"
                )
        return chosen

    def share(self, rank: int, ranks: int) -> None:
        """Give this process its part of every epoch's batches."""
        self.rank, self.ranks = rank, ranks

    def train_dataloader(self) -> DataLoader:
        """Batches of the training rows, in the order of seed and epoch."""
        if self.stream is None:
            return self._loader("train")
        self.stream.rank, self.stream.ranks = self.rank, self.ranks
        return DataLoader(self.stream, batch_size=None, collate_fn=partial(training_batch, pad_id=self.pad_id))

    def epoch_batches(self) -> int | None:
        """Batches of an epoch of training for each process; None for a stream, which has no end."""
        return None if self.streaming else len(self.batches("train"))

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Batches of the validation rows, by length; none where ``split.val`` is 0."""
        return self._loader("val") if len(self.encoded["val"]) else []

    def batches(self, split: str) -> PlannedBatchSampler:
        """The batch sampler of a split; rows that are not trained on need no shuffling, and pad less by length.

        Which rows share a line is worked out once: with many rows that takes longer than all else here.
        """
        plan = self.plan
        if split != "train":
            plan = replace(plan, shuffle=False, batching="grouped" if plan.batching == "rows" else plan.batching)
        key = (split, plan, self.rank, self.ranks)
        if key not in self.planned:
            self.planned[key] = PlannedBatchSampler(
                self.facts.sizes(self.chosen[split]), plan, rank=self.rank, ranks=self.ranks
            )
        return copy(self.planned[key])  # each has its own place in the epochs

    def in_order(self) -> Rows:
        """The kept rows of all splits as they stand in the file, each once."""
        return Rows(self.table, np.unique(np.concatenate(list(self.chosen.values()))))

    def examples_in_order(self) -> Examples:
        """The example of each row of ``in_order``."""
        return Examples(self.examples.table, self.facts["example"][self.in_order().chosen])

    def examples_of(self, split: str) -> Examples:
        """The examples of a split (of val where there is no test; of train where there is no val either), each once."""
        chosen = next(name for name in (split, "val", "train") if len(self.chosen[name]))
        numbers = self.facts["example"][self.chosen[chosen]]
        _, first = np.unique(numbers, return_index=True)
        return Examples(self.examples.table, numbers[np.sort(first)])

    def _examples_key(self) -> str:
        """Everything that decides which examples there are, and how they are named."""
        readings = [
            {
                "data": reading.source.sha256 or (reading.source.hub and reading.source.hub.fingerprint),
                "places": [reading.source.given, *(part.given for part in reading.source.parts)],
                "settings": [reading.name, reading.system, reading.limit, reading.invalid, reading.duplicates],
            }
            for reading in self.readings()
        ]
        return key_of(readings=readings, meaning=self.meaning())

    def _check_left(self, rows: int) -> None:
        if rows == 0:
            why = ", ".join(f"{count} {reason}" for reason, count in self.account.dropped.items())
            example = f"; e.g. {self.account.first}" if self.account.first else ""
            raise UserError(
                f"data.path={self.source.given}: no row is left to train on ({why or 'it holds none'}){example}"
            )

    def _loader(self, split: str) -> DataLoader:
        return DataLoader(
            PackedDataset(self.encoded[split]),
            batch_sampler=self.batches(split),  # pyright: ignore[reportArgumentType]
            collate_fn=partial(training_batch, pad_id=self.pad_id),
            num_workers=self.num_workers,
            worker_init_fn=end_with_parent,
            # a loader that drew its workers' seed from the global generator would move the model's dropout
            generator=torch.Generator().manual_seed(self.plan.seed),
        )
