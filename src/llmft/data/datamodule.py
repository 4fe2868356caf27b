"""``InstructionDataModule``: the Lightning data module that every data set is."""

from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from hydra.utils import get_class
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from llmft.config.schema.data import Data
from llmft.data.batching.collate import PackedDataset, training_batch
from llmft.data.batching.prefetch import PrefetchingLoader
from llmft.data.batching.sampler import PlannedBatchSampler
from llmft.data.preparation import DataPreparation
from llmft.data.tokenization.codec import Codec
from llmft.utils.distributed import end_with_parent
from llmft.utils.errors import UserError


def open_data(config: Data) -> "InstructionDataModule":
    """The data module of a config; keys that a class has in addition to those of ``conf/data`` are its keyword arguments.

    Raises:
        UserError: As the class.
    """
    return get_class(config.target)(config, **(config.model_extra or {}))


class InstructionDataModule(DataPreparation, LightningDataModule):
    """Base of the data sets; a data set adds ``to_example`` and nothing else.

    Lightning calls ``prepare_data`` (reads and encodes into the cache, on the first process of each node) and ``setup`` (opens
    the cache and splits, on every process). Both need a codec, which encodes for one backbone and one prompt::

        data.codec = codec
        Trainer(use_distributed_sampler=False).fit(module, datamodule=data)

    The batch sampler shards the batches itself, therefore ``use_distributed_sampler=False``.
    """

    _shard: tuple[int, int] = (0, 1)
    _position: dict[str, Any] | None = None

    def prepare_data(self) -> None:
        """Read, validate and encode the rows into the cache (Lightning calls this on one process of each node).

        Raises:
            UserError: As ``read`` and ``encode``, or no codec is set.
        """
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Open the cache and split the rows; without a cache, read and encode them.

        Raises:
            UserError: As ``prepare_data``.
        """
        if self.codec is None:
            raise UserError(f"data={self.name}: has no codec; set datamodule.codec = codec before setup()")
        if self._encoded_by is not self.codec:
            self.read()
            self.encode(self.codec)

    def encode(self, codec: Codec) -> None:
        """Encode and split, as ``DataPreparation.encode``."""
        super().encode(codec)
        self._samplers: dict[Any, PlannedBatchSampler] = {}

    def share(self, rank: int, ranks: int) -> None:
        """Shard the batches of every epoch without a trainer: this is process ``rank`` of ``ranks``."""
        self._shard = (rank, ranks)

    @property
    def shard(self) -> tuple[int, int]:
        """Rank and world size: the trainer's where one is attached, else those of ``share``."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else self._shard

    def train_dataloader(self) -> DataLoader:
        """Batches of the training rows, in an order that seed and epoch decide; after a resume, from its position."""
        position, self._position = self._position, None
        if self.stream is None:
            loader = self._loader("train")
            if position:
                loader.batch_sampler.resume_at(position["epoch"], position["batches"])  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
            return loader
        self.stream.rank, self.stream.ranks = self.shard
        if position:
            self.stream.resume_at(position["batches"], position["stream"])
        return DataLoader(self.stream, batch_size=None, collate_fn=partial(training_batch, pad_id=self.pad_id))

    def val_dataloader(self) -> DataLoader | dict[str, DataLoader] | list[DataLoader]:
        """Batches of the validation rows, grouped by length.

        An empty list where ``split.val`` is 0; with ``data.extra_val``, the loaders of ``val`` and of each ``val/NAME``.
        """
        if self.extra_val:
            return {name: self._loader(name) for name in ("val", *self.extra_val)}
        return self._loader("val") if len(self.encoded["val"]) else []

    def test_dataloader(self) -> DataLoader:
        """Batches of the rows that an evaluation scores: test, or val where ``split.test`` is 0; grouped by length."""
        return self._loader(self.stand_in("test"))

    def predict_dataloader(self) -> DataLoader:
        """Prompts that an evaluation answers, as lists of token ids: of a row of ``test_dataloader``, its last turn."""
        rank, ranks = self.shard
        rows = list({row.place: row for row in self.encoded[self.stand_in("test")]}.values())[rank::ranks]
        prompts: Any = [row.input_ids[: row.prompt_length] for row in rows]
        return DataLoader(prompts, batch_size=self.plan.batch_size, collate_fn=list)

    def state_dict(self) -> dict[str, Any]:
        """The position of the training: epoch, batches of it that this process has trained on, and the stream's windows."""
        if self.trainer is None:
            return {}
        loop: Any = self.trainer.fit_loop
        epoch = max(0, loop.epoch_progress.current.started - 1)
        stream = self.stream.state() if self.stream else []
        return {"epoch": epoch, "batches": self.trained_batches(), "stream": stream}

    def trained_batches(self) -> int:
        """The batches of the attached trainer's epoch that this process has trained; of a stream, of the training."""
        loop: Any = self.trainer.fit_loop if self.trainer else None
        return loop.epoch_loop.batch_progress.current.processed if loop else 0

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume at the position of ``state_dict``."""
        if state_dict:
            self.resume_at(state_dict["epoch"], state_dict["batches"], state_dict["stream"])

    def resume_at(self, epoch: int, batches: int, stream: Iterable[dict[str, Any]] = ()) -> None:
        """Let the next ``train_dataloader`` skip the first batches of an epoch; ``stream`` is ``StreamingDataset.state``."""
        self._position = {"epoch": epoch, "batches": batches, "stream": stream}

    def epoch_batches(self) -> int | None:
        """Batches of a training epoch for each process; None for a stream, which is endless."""
        return None if self.streaming else len(self.batches("train"))

    def batches(self, split: str) -> PlannedBatchSampler:
        """The batch sampler of a split; validation and test rows are not shuffled, but grouped by length.

        Planned once and then copied: packing many rows takes longer than everything else here.
        """
        plan = self.plan
        if split != "train":
            plan = replace(plan, shuffle=False, batching="grouped" if plan.batching == "rows" else plan.batching)
        rank, ranks = self.shard
        key = (split, plan, rank, ranks)
        if key not in self._samplers:
            sizes = self.row_columns.sizes(self.indices[split])
            self._samplers[key] = PlannedBatchSampler(sizes, plan, rank=rank, ranks=ranks)
        return copy(self._samplers[key])  # each copy has its own position

    def _loader(self, split: str) -> DataLoader:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        # pinned batches are copied to a GPU without waiting for it
        return (PrefetchingLoader if on_gpu and not self.num_workers else DataLoader)(
            PackedDataset(self.encoded[split]),
            batch_sampler=self.batches(split),  # pyright: ignore[reportArgumentType]
            collate_fn=partial(training_batch, pad_id=self.pad_id, weighted=split == "train"),
            num_workers=self.num_workers,
            pin_memory=on_gpu,
            worker_init_fn=end_with_parent,
            # a loader that drew its workers' seed from the global generator would change the model's dropout
            generator=torch.Generator().manual_seed(self.plan.seed),
        )
