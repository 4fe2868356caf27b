"""InstructionDataModule: rows of one data set -> validated examples -> encoded rows -> loaders."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from llmft.batching import Batches, Plan
from llmft.collate import Lines, training_batch
from llmft.data.account import Account
from llmft.data.fitting import Fitting, TooLongError
from llmft.data.splitting import deal
from llmft.encoding import Codec, Encoded
from llmft.errors import UserError
from llmft.records import Example, Row, RowError
from llmft.sources import Located, find, read


class InstructionDataModule(pl.LightningDataModule):
    """Base of the data sets; a data set adds ``to_example`` and nothing else. The arguments are the keys of ``conf/data``."""

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
        split: Mapping[str, float | None],
        split_by: str,
        shuffle: bool,
        batching: str,
        tokens_per_batch: int,
        pack_tokens: int | None,
        num_workers: int,
        train_on: str,
        train_on_turns: str,
        seed: int,
    ) -> None:
        super().__init__()
        self.source = find(path, name, sha256=sha256, revision=revision, subset=subset, hub_split=hub_split)
        named = {"prompt": max_prompt_tokens, "answer": max_answer_tokens}
        self.account = Account(self.source.given, self.source.sha256, named)
        self.fitting = Fitting(max_prompt_tokens, max_answer_tokens, too_long)
        budgets = (max_prompt_tokens, max_answer_tokens)
        self.plan = Plan(batching, batch_size, tokens_per_batch, pack_tokens, budgets, shuffle, seed)
        self.system, self.limit, self.invalid, self.duplicates = system, limit, invalid, duplicates
        self.split, self.split_by, self.num_workers = split, split_by, num_workers
        self.rank, self.ranks = 0, 1
        self.examples: list[Example] = []
        self.encoded: dict[str, list[Encoded]] = {}
        self.pad_id = 0

    @staticmethod
    @abstractmethod
    def to_example(row: Row) -> Example:
        """What a row means.

        Raises:
            RowError: A field is missing or holds something else than it should.
        """

    def read(self) -> None:
        """Read and validate the rows, before any model is loaded.

        Raises:
            UserError: Rows are broken (``invalid=error``) or repeated (``duplicates=error``), or none is left.
        """
        faults: list[str] = []
        seen: dict[tuple[object, str], str] = {}
        for located in read(self.source):
            if self.limit is not None and len(self.examples) >= self.limit:
                break
            self.account.read += 1
            try:
                example = self._example(located)
                self._check_repeated(example, seen)
            except RowError as error:
                policy = self.duplicates if error.field == "duplicate" else self.invalid
                if policy == "error":
                    faults.append(f"{located.place}: {error}")
                why = "duplicate" if error.field == "duplicate" else "invalid"
                self.account.drop(located.place, error.field, error.reason, why)
                continue
            self.examples.append(example)
        if faults:
            raise UserError.from_faults(f"data.path={self.source.given}", faults)
        self._check_left(len(self.examples))

    def encode(self, codec: Codec) -> None:
        """Encode every example within its budgets and deal the rows out to train, test and val.

        Raises:
            UserError: A row is over a budget (``too_long=error``), or no row is left to train on.
        """
        groups: list[list[Encoded]] = []  # the rows of one example stay together, in one split
        faults: list[str] = []
        for example in self.examples:
            groups.append([])
            for part in codec.parts(example):
                try:
                    row, trimmed = self.fitting.fit(part, codec)
                except TooLongError as error:
                    faults.append(f"{example.place}: the {error.part} {error}")
                    self.account.drop(example.place, error.part, str(error), f"{error.part} too long")
                    continue
                if not row.supervised:
                    why = "none of its tokens would be trained"
                    self.account.drop(example.place, "answer", why, "nothing to learn")
                    continue
                self.account.trimmed += trimmed
                self.account.look(part, codec.template.controls)
                groups[-1].append(row)
        if faults and self.fitting.too_long == "error":
            raise UserError.from_faults("data.too_long=error", faults)
        groups = [group for group in groups if group]
        rows = [row for group in groups for row in group]
        self._check_left(len(rows))
        self.account.count(rows, codec.tokenizer.bos_token_id, codec.stop_id)
        self.pad_id = codec.tokenizer.pad_token_id
        dealt = deal(groups, self.split, self.split_by, self.plan.seed)
        self.encoded = {name: [row for group in part for row in group] for name, part in dealt.items()}
        self.account.unused = len(rows) - sum(map(len, self.encoded.values()))

    def share(self, rank: int, ranks: int) -> None:
        """Give this process its part of every epoch's batches."""
        self.rank, self.ranks = rank, ranks

    def train_dataloader(self) -> DataLoader:
        """Batches of the training rows, in the order of seed and epoch."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Batches of the validation rows, by length; none where ``split.val`` is 0."""
        return self._loader("val") if self.encoded["val"] else []

    def batches(self, split: str) -> Batches:
        """The batch sampler of a split; rows that are not trained on need no shuffling, and pad less by length."""
        plan = self.plan
        if split != "train":
            plan = replace(plan, shuffle=False, batching="grouped" if plan.batching == "rows" else plan.batching)
        return Batches([row.size for row in self.encoded[split]], plan, rank=self.rank, ranks=self.ranks)

    def in_order(self) -> list[Encoded]:
        """The kept rows of all splits as they stand in the file."""
        rows: dict[str, list[Encoded]] = {}
        for row in (row for split in self.encoded.values() for row in split):
            rows.setdefault(row.place, []).append(row)
        return [row for example in self.examples for row in rows.get(example.place, [])]

    def examples_of(self, split: str) -> list[Example]:
        """The examples of a split (of val where there is no test; of train where there is no val either)."""
        chosen = next(name for name in (split, "val", "train") if self.encoded[name])
        places = {row.place: position for position, row in enumerate(self.encoded[chosen])}
        return sorted((e for e in self.examples if e.place in places), key=lambda e: places[e.place])

    def _example(self, located: Located) -> Example:
        if located.fault:
            raise RowError("row", located.fault)
        example = self.to_example(located.row).with_system(self.system)
        number = located.place.rpartition(":")[2]
        return Example(example.context, example.answer, example.id or number, located.place)

    def _check_repeated(self, example: Example, seen: dict[tuple[object, str], str]) -> None:
        first = seen.setdefault((example.context, example.answer), example.place)
        if first is not example.place and self.duplicates != "keep":
            raise RowError("duplicate", f"repeats {first}")

    def _check_left(self, rows: int) -> None:
        if rows == 0:
            why = ", ".join(f"{count} {reason}" for reason, count in self.account.dropped.items())
            example = f"; e.g. {self.account.rejected[0]}" if self.account.rejected else ""
            raise UserError(
                f"data.path={self.source.given}: no row is left to train on ({why or 'it holds none'}){example}"
            )

    def _loader(self, split: str) -> DataLoader:
        return DataLoader(
            Lines(self.encoded[split]),
            batch_sampler=self.batches(split),  # pyright: ignore[reportArgumentType]
            collate_fn=partial(training_batch, pad_id=self.pad_id),
            num_workers=self.num_workers,
            # a loader that drew its workers' seed from the global generator would move the model's dropout
            generator=torch.Generator().manual_seed(self.plan.seed),
        )
