"""Every data set is a LightningDataModule: its hooks, its place in a plain Trainer, and what its encoders import."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from llmft.data.batching.prefetch import PrefetchingLoader
from llmft.data.datamodule import InstructionDataModule, open_data
from llmft.data.eval_rows import first_rows
from llmft.data.preprocessing import encode, read_examples
from llmft.data.preprocessing.arrow_store import ArrowTable
from llmft.utils.errors import UserError
from tests.conftest import chat_row, write_rows

ROWS = [chat_row(f"Question {n}?", f"Answer {n}.") for n in range(20)]
HEAVY = ("torch", "lightning", "torchmetrics", "peft", "datasets")


@pytest.fixture
def fresh(module, load_config, tmp_path):
    """A data module that has read nothing, with its codec."""
    write_rows(tmp_path / "rows.jsonl", *ROWS)

    codec = module("model=tiny_gpt2", "data.cache=off").codec

    def make(*overrides: str) -> InstructionDataModule:
        options = ("model=tiny_gpt2", f"data.cache={tmp_path / 'cache'}", "data.batch_size=2", *overrides)
        data = open_data(load_config("data.path=rows.jsonl", *options).data)
        data.codec = codec
        return data

    return make


class Seen(pl.LightningModule):
    """One weight; notes the places of the rows that it is trained on, and stops in the middle of an epoch."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight, self.stop_after, self.steps, self.places = torch.nn.Parameter(torch.zeros(1)), stop_after, 0, []

    def training_step(self, batch: dict[str, Any]) -> torch.Tensor:
        self.places.append(batch["places"])
        return self.weight.sum()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 (Lightning's)
        self.steps += 1
        if self.steps == self.stop_after:
            raise KeyboardInterrupt

    def validation_step(self, batch: dict[str, Any]) -> None:
        self.log("val/rows", len(batch["places"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder: Any, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(default_root_dir=folder, callbacks=list(callbacks), max_epochs=2, **quiet, **options)


def test_nothing_is_read_before_it_is_needed(load_config):
    data = open_data(load_config("data=alpaca", "data.path=missing.jsonl").data)
    assert isinstance(data, InstructionDataModule)
    assert issubclass(InstructionDataModule, pl.LightningDataModule)
    with pytest.raises(UserError, match=r"data.path=missing.jsonl: no such file"):
        data.read()


def test_setup_needs_a_codec(fresh):
    data = fresh()
    data.codec = None
    with pytest.raises(UserError, match=r"has no codec; set datamodule.codec"):
        data.setup("fit")


def test_setup_finds_what_the_first_process_has_prepared(fresh, monkeypatch):
    fresh().prepare_data()
    monkeypatch.setattr(encode.Preprocessor, "encode_batch", None)
    monkeypatch.setattr(read_examples.ExampleReader, "_example", None)
    data = fresh()
    data.setup("fit")
    assert {name: len(rows) for name, rows in data.encoded.items()} == {"train": 18, "test": 0, "val": 2}


def test_without_a_cache_each_process_encodes(fresh):
    data = fresh("data.cache=off")
    data.setup("fit")
    assert len(data.encoded["train"]) == 18


def test_a_plain_trainer_trains_and_resumes_in_the_middle_of_an_epoch(fresh, tmp_path):
    whole = Seen()
    trainer(tmp_path / "a").fit(whole, datamodule=fresh())
    assert len(whole.places) == 18
    assert len({place for batch in whole.places[:9] for place in batch}) == 18
    assert whole.places[:9] != whole.places[9:]

    first, rest = Seen(stop_after=12), Seen()
    every = ModelCheckpoint(tmp_path / "b", every_n_train_steps=1, save_top_k=1, monitor=None)
    with pytest.raises(SystemExit):
        trainer(tmp_path / "b", every).fit(first, datamodule=fresh())
    trainer(tmp_path / "b").fit(rest, datamodule=fresh(), ckpt_path=every.best_model_path, weights_only=True)
    done = torch.load(every.best_model_path, weights_only=True)["Academic"]
    assert (done["epoch"], done["batches"]) in {(1, 2), (1, 3)}  # Lightning saves at the end of a step
    assert rest.places == whole.places[9 + done["batches"] :]


def test_test_and_predict_batches_are_those_of_the_test_split(fresh):
    data = fresh("data.split.test=0.25")
    data.setup()
    wanted = {row.place for row in data.encoded["test"]}
    assert len(wanted) == 5
    assert {place for batch in data.test_dataloader() for place in batch["places"]} == wanted
    prompts = {tuple(row.input_ids[: row.prompt_length]) for row in data.encoded["test"]}
    assert {tuple(prompt) for batch in data.predict_dataloader() for prompt in batch} == prompts
    without = fresh("data.split.val=0")
    without.setup()
    assert without.val_dataloader() == []


def test_without_a_test_split_the_validation_rows_are_tested(fresh):
    data = fresh("data.split.test=0")
    data.setup()
    wanted = {row.place for row in data.encoded["val"]}
    assert {place for batch in data.test_dataloader() for place in batch["places"]} == wanted
    assert sum(len(batch) for batch in data.predict_dataloader()) == len(wanted) > 0


def test_batches_are_sharded_by_the_trainer_or_by_hand(fresh):
    data = fresh()
    data.setup()
    parts = []
    for rank in range(2):
        data.share(rank, 2)
        parts.append([place for batch in data.train_dataloader() for place in batch["places"]])
    assert sorted(parts[0] + parts[1]) == sorted(row.place for row in data.encoded["train"])
    data.trainer = trainer_on("cpu", ranks=2)
    assert [place for batch in data.train_dataloader() for place in batch["places"]] == parts[0]


def trainer_on(device: str, ranks: int = 1) -> Any:
    """The part of a trainer that a data module asks."""
    return SimpleNamespace(global_rank=0, world_size=ranks, strategy=SimpleNamespace(root_device=torch.device(device)))


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")  # there is no GPU here
def test_batches_for_a_gpu_are_pinned_and_made_ahead_after_a_resume_too(fresh):
    data = fresh()
    data.setup()
    data.trainer = trainer_on("cpu")
    expected = data.train_dataloader()
    assert (type(expected), expected.pin_memory) == (DataLoader, False)
    places = [batch["places"] for batch in expected]
    data.trainer = trainer_on("cuda")
    loader = data.train_dataloader()
    assert (type(loader), loader.pin_memory, loader.num_workers) == (PrefetchingLoader, True, 0)
    assert [batch["places"] for batch in loader] == places
    data.resume_at(0, 3)
    assert [batch["places"] for batch in data.train_dataloader()] == places[3:]
    data.num_workers = 1  # which makes batches ahead itself
    assert (type(data.train_dataloader()), data.train_dataloader().pin_memory) == (DataLoader, True)


def test_a_process_that_encodes_imports_neither_torch_nor_lightning(fresh):
    data = fresh()
    data.read()
    preprocessor = encode.Preprocessor(data.examples.table.file, data.codec, data.truncation)
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawned, encode._init_worker, (preprocessor,)) as pool:
        assert pool.submit(encode._call, "encode_batch", 0).result().counts.kept == 20
        modules = pool.submit(eval, "set(__import__('sys').modules)").result()
    assert "llmft.data.preprocessing.encode" in modules
    assert modules.isdisjoint(HEAVY), sorted(modules & set(HEAVY))


def test_evaluation_decodes_only_the_rows_that_it_uses(fresh, monkeypatch):
    data = fresh("data.split.test=0.5")
    data.setup()
    wanted = [row.place for row in data.encoded["test"]][:3]
    decoded, real = [], ArrowTable.row
    monkeypatch.setattr(ArrowTable, "row", lambda self, number: decoded.append(number) or real(self, number))
    rows = first_rows(data, 3, "test")
    assert (rows.split, rows.total) == ("test", 10)
    assert [example.place for example in rows.examples] == [row.place for row in rows.encoded] == wanted
    assert len(decoded) == 6  # three examples, three encoded rows


def test_what_a_loss_was_measured_on_is_the_same_for_every_model(fresh, module):
    """A causal and a seq2seq model with other budgets: the same rows by the same identities, the same bytes, their own tokens."""
    causal, t5 = fresh("data.split.val=0.5"), fresh("data.split.val=0.5", "data.max_prompt_tokens=300")
    t5.codec = module("model=tiny_t5", "data.cache=off").codec
    for data in (causal, t5):
        data.setup()
    ours, theirs = causal.reference_size("val"), t5.reference_size("val")
    assert ours["identity"] == theirs["identity"]
    assert ours["bytes"] == theirs["bytes"] == sum(len(example.answer) for example in causal.examples_of("val"))
    assert [size["tokens"] for size in (ours, theirs)] == [
        sum(row.supervised for row in data.encoded["val"]) for data in (causal, t5)
    ]
    rows = first_rows(causal, 4, "val"), first_rows(t5, 4, "val")
    assert rows[0].identities == rows[1].identities
    assert len(set(rows[0].identities)) == 4
