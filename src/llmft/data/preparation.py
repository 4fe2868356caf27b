"""One data set's rows, read, validated, encoded and split: what ``InstructionDataModule`` loads its batches from."""

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate

from llmft.config.schema.data import Data, MixData
from llmft.data.batching.sampler import BatchingConfig
from llmft.data.data_files import DataFiles
from llmft.data.preprocessing import near_duplicates
from llmft.data.preprocessing.arrow_store import ArrowTable, Examples, RowColumns, Rows
from llmft.data.preprocessing.audit import Audit
from llmft.data.preprocessing.cache import Cache, codec_key, key_of
from llmft.data.preprocessing.encode import Preprocessor
from llmft.data.preprocessing.leakage import in_train, without_leaks
from llmft.data.preprocessing.near_duplicates import NearDuplicate
from llmft.data.preprocessing.read_examples import examples_key, write_examples
from llmft.data.preprocessing.reference_size import reference_size
from llmft.data.preprocessing.row_counts import RowCounts
from llmft.data.preprocessing.split import HashSplit, SplitConfig, split_by_identity, split_groups
from llmft.data.preprocessing.split_keys import FREE, SPLITS, TRAIN, own_file_key, read_split_keys
from llmft.data.preprocessing.streaming import StreamingDataset
from llmft.data.preprocessing.text_notes import note_line, text_notes
from llmft.data.preprocessing.train_fraction import nested_subset, repeated
from llmft.data.preprocessing.truncation import Truncation
from llmft.data.tokenization.codec import Codec
from llmft.utils.errors import UserError

log = logging.getLogger(__name__)


def batching_config(config: Data) -> BatchingConfig:
    """How the examples of a data set become batches."""
    return BatchingConfig(
        config.batching,
        config.batch_size,
        config.tokens_per_batch,
        config.pack_tokens,
        (config.max_prompt_tokens, config.max_answer_tokens),
        config.shuffle,
        config.seed,
    )


class DataPreparation(DataFiles):
    """Reads, encodes and splits the rows of a data set.

    Args:
        config: The config of the data group; nothing is read before ``read``.

    Attributes:
        codec: Encodes examples for one backbone and one prompt.
        examples: The examples, in the order of the file, after ``read``.
        encoded: The encoded examples of ``train``, ``test`` and ``val``, after ``encode``.
        indices: Their row numbers in ``row_columns``.
        metrics: ``keywords``, names of built-in metrics, or ``metrics.metric.Metric``; the first leads the verdict.
        row_counts: How many rows were read, dropped, trimmed, and why.
        audit: Lengths, duplicates and leakage of each split.
        text_notes: What is worth knowing of the texts of all splits, as of ``text_notes``.
        near_duplicates: Held-out examples whose prompt is nearly one in train; None if they were not searched.
        stream: The training batches of ``data.streaming=true``.
        pad_id: The tokenizer's pad token.
        fraction_of: Number of training examples before ``data.train_fraction``.
    """

    codec: Codec | None = None
    stream: StreamingDataset | None = None
    audit: Audit | None = None
    near_duplicates: list[NearDuplicate] | None = None
    pad_id = 0
    fraction_of = 0

    def __init__(self, config: Data) -> None:
        super().__init__(config)
        self.num_workers, self.processes = config.num_workers, config.processes
        self.metrics = [m if isinstance(m, str) else instantiate(m.node()) for m in config.metrics]
        self.truncation = Truncation(config.max_prompt_tokens, config.max_answer_tokens, config.too_long)
        self.plan = batching_config(config)
        # an own file takes the place of a fraction
        own = {name: 0 for name in ("val", "test") if getattr(config, f"{name}_path") is not None}
        split = config.split.node() | own
        self.split = SplitConfig(split, config.split_by, config.leakage, config.split_seed)
        self.cache = Cache("off" if config.streaming else config.cache)
        self.stream_buffer = config.stream_buffer
        self.hash_split = HashSplit(split, config.split_seed, config.stream_held_out)
        self.encoded: dict[str, Rows] = {}
        self._encoded_by: Codec | None = None
        self.text_notes: list[dict[str, Any]] = []

    def read(self) -> None:
        """Read and validate the rows; of a stream, only its first rows of each split. Needs no model.

        Raises:
            UserError: Rows are invalid (``invalid=error``) or repeated (``duplicates=error``), or none is left.
        """
        self._encoded_by = None
        budgets = {"prompt": self.truncation.max_prompt, "answer": self.truncation.max_answer}
        self.row_counts = RowCounts(self.source.given, self.source.sha256, budgets)
        self.examples_key = examples_key(self.readers(), self.fingerprint())

        def build(folder: Path) -> None:
            counts = RowCounts(self.source.given, self.source.sha256)
            write_examples(self.readers(), folder, counts, self.hash_split.first if self.streaming else iter)
            counts.save(folder)

        folder = self.cache.folder("examples", self.examples_key, build)
        self.row_counts.add_saved(folder)
        table = ArrowTable(folder / "examples.arrow")
        self.examples = Examples(table, np.arange(len(table)))
        self.split_keys = read_split_keys(folder)
        self._check_not_empty(len(table))

    def encode(self, codec: Codec) -> None:
        """Encode every example within its token budgets, and split the encoded rows into train, test and val.

        Raises:
            UserError: A row is over a budget (``too_long=error``), prompts leak between splits (``leakage=error``), or no row
                is left to train on.
        """
        if self._encoded_by is not None:
            self.read()  # the counts of another codec do not count twice

        def build(folder: Path) -> None:
            counts = RowCounts(self.source.given, self.source.sha256)
            preprocessor.write(folder, counts, self.processes)
            counts.save(folder)

        for line in codec.notes():
            log.info(line)
        preprocessor = Preprocessor(self.examples.table.file, codec, self.truncation)
        if self.streaming:
            rest = (preprocessor, self.plan, self.stream_buffer, self.num_workers)
            self.stream = StreamingDataset(self.reader, self.hash_split, *rest)
        key = key_of(examples=self.examples_key, codec=codec_key(codec), truncation=asdict(self.truncation))
        folder = self.cache.folder("rows", key, build)
        self.row_counts.add_saved(folder)
        self.table, self.row_columns = ArrowTable(folder / "rows.arrow"), RowColumns(folder)
        self._check_not_empty(len(self.table))
        self.pad_id = codec.tokenizer.pad_token_id
        self._split()
        self.codec = self._encoded_by = codec

    def _split(self) -> None:
        owners, counts, fixed = self.row_columns["example"], self.row_counts, self.split_keys[1]
        # those of data.extra_val come after all others and change no split
        rows = np.flatnonzero(fixed[owners] < len(SPLITS)) if self.extra_val else np.arange(len(owners))
        try:
            parts, counts.unused = self._shares(owners[rows])
        except UserError as error:
            if not counts.dropped:
                raise
            left = counts.read - counts.dropped.total()
            raise UserError(f"{counts.shares()}; {left:,} left, none to train on: {error}") from None
        indices = {name: rows[part] for name, part in parts.items()}
        for number, name in enumerate(self.extra_val, len(SPLITS)):
            indices[name] = np.flatnonzero(fixed[owners] == number)
        self._check_validation(indices)
        if self.split.leakage != "warn":
            indices = without_leaks(indices, self.row_columns, self.table, counts, self.split.leakage)
        indices = self._without_near_duplicates(indices)
        epoch, fraction = len(self.weighted(indices["train"])), self.config.train_fraction
        some = nested_subset(indices["train"], owners, self.split_keys[0], fraction, self.config.seed)
        indices, self.fraction_of = indices | {"train": some}, len(np.unique(owners[indices["train"]]))
        nearly = {name: rows[self.is_near_duplicate(rows)] for name, rows in indices.items() if name != "train"}
        self.audit = Audit.of(self.row_columns, indices, counts, None if self.near_duplicates is None else nearly)
        self.text_notes = text_notes(self.row_columns, self.examples, np.concatenate([*indices.values()]))
        self.indices = indices | {"train": repeated(self.weighted(indices["train"]), epoch)}
        self.encoded = {name: Rows(self.table, rows) for name, rows in self.indices.items()}

    def _shares(self, owners: np.ndarray) -> tuple[dict[str, np.ndarray], int]:
        """Train, test and val among the rows of these examples, and how many examples are in none."""
        groups, fixed = self.split_keys
        named = bool(((fixed != FREE) & (fixed < len(SPLITS))).any())  # then numbers among all rows decide nothing
        if not self.streaming and (named or not self.split.by_number):
            return split_by_identity(owners, groups, *self._free(fixed), self.split.seed)
        by_number = partial(self.split.assign, total=int((fixed < len(SPLITS)).sum()))
        parts, unused = split_groups(owners, self.hash_split.assign if self.streaming else by_number)
        if self.streaming:
            self.hash_split.check(parts)
        return parts, unused

    def _free(self, fixed: np.ndarray) -> tuple[np.ndarray, dict[str, float | None]]:
        """The splits that rows name, with train as rows of none, and the fractions of those: of a named split it is 0."""
        split = dict(self.split.split)
        if (fixed == TRAIN).any():
            split["train"] = None
            if not isinstance(self.config, MixData):  # a fraction of a mix is of all its sets
                split |= {name: 0 for code, name in enumerate(SPLITS) if code != TRAIN and (fixed == code).any()}
        return np.where(fixed == TRAIN, FREE, fixed), split

    def _without_near_duplicates(self, indices: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Search examples of val and test whose prompt is nearly one in train, and apply ``data.near_duplicates``.

        Raises:
            UserError: There are any (``error``), or no row of a split is left (``drop``).
        """
        policy, owners = self.config.near_duplicates, self.row_columns["example"]
        self.near_duplicates = None
        if policy == "off" or self.streaming:
            return indices
        splits = {name: np.unique(owners[rows]) for name, rows in indices.items()}
        found = near_duplicates.find(self.examples.table, splits, self.cache, self.examples_key)
        if found and policy == "error":
            raise UserError.from_faults("data.near_duplicates=error", list(map(str, found)))
        if found and policy == "drop":
            indices, found = near_duplicates.without(indices, found, owners, self.row_counts), []
        self.near_duplicates = found
        return indices

    def is_near_duplicate(self, rows: np.ndarray) -> np.ndarray:
        """Whether each of these rows is of one of ``near_duplicates``: [rows], bool."""
        return np.isin(self.row_columns["example"][rows], [found.example for found in self.near_duplicates or ()])

    def findings(self) -> list[str]:
        """The findings of the audit, the notes on the texts, and the first near-duplicates, each in a line."""
        notes = map(note_line, self.text_notes)
        found = near_duplicates.lines(self.config.near_duplicates, self.near_duplicates)
        return [*(self.audit.lines() if self.audit else []), *notes, *found]

    def is_in_train(self, rows: np.ndarray) -> np.ndarray:
        """Whether the prompt of each row is in train too: exactly, except for case and white space, or nearly; [rows], bool."""
        return in_train(self.row_columns, self.indices, rows) | self.is_near_duplicate(rows)

    def _check_validation(self, indices: dict[str, np.ndarray]) -> None:
        """With ``data.extra_val``, there is a validation set, and no set is empty."""
        for name in ("val", *self.extra_val) if self.extra_val else ():
            if not len(indices[name]):
                needed = "data.extra_val: needs a validation set too; set data.split.val or data.val_path"
                raise UserError(needed if name == "val" else f"{own_file_key(name)}: no row of the file is left")

    def weighted(self, rows: np.ndarray) -> np.ndarray:
        """The row numbers of an epoch of training; a mix of sets repeats or omits some by its weights."""
        return rows

    def in_order(self) -> Rows:
        """The encoded rows of all splits in the order of the file, each once."""
        return Rows(self.table, np.unique(np.concatenate(list(self.indices.values()))))

    def examples_in_order(self) -> Examples:
        """The example of each row of ``in_order``."""
        return Examples(self.examples.table, self.row_columns["example"][self.in_order().indices])

    def reference_size(self, split: str) -> dict[str, Any]:
        """Rows, tokens and bytes of the references of a split, as of ``reference_size``."""
        config = self.config
        return reference_size(
            self.examples.table,
            self.row_columns,
            self.indices[split],
            answers_only=config.train_on == "answer" and config.train_on_turns == "last",
            max_answer=config.max_answer_tokens,
        )

    def train_examples(self) -> int:
        """Number of different training examples."""
        return len(np.unique(self.row_columns["example"][self.indices["train"]]))

    def stand_in(self, split: str) -> str:
        """The split itself; without rows val, and without a validation set train."""
        return next(name for name in (split, "val", "train") if len(self.indices[name]))

    def examples_of(self, split: str) -> Examples:
        """The examples of a split, or of the one that stands in for it, each once."""
        numbers = self.row_columns["example"][self.indices[self.stand_in(split)]]
        _, first = np.unique(numbers, return_index=True)
        return Examples(self.examples.table, numbers[np.sort(first)])

    def _check_not_empty(self, rows: int) -> None:
        if rows == 0:
            counts = self.row_counts
            why = f"{counts.shares()}; e.g. {counts.first}" if counts.first else "it holds no row"
            raise UserError(f"data.path={self.source.given}: no row is left to train on ({why})")
