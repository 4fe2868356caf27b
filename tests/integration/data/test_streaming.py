"""A stream trains each row once an epoch, in the same order for any number of processes, and goes on where it stopped."""

import csv
import json
import random
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.data.preprocessing import streaming
from llmft.data.preprocessing.split import HashSplit
from llmft.data.preprocessing.streaming import shuffled
from llmft.data.records import Example, Turn
from llmft.utils.errors import UserError
from tests.conftest import chat_row, read_json_lines, write_rows

STREAM = (
    "model=tiny_gpt2",
    "data.streaming=true",
    "data.batch_size=4",
    "data.stream_buffer=15",
    "data.stream_held_out=3",
)


def row(number):
    return chat_row(f"Question {number}? " + "why " * (number % 7), f"Answer {number}. " + "so " * (number % 11))


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch):
    monkeypatch.setattr(streaming, "WINDOW_ROWS", 20)


@pytest.fixture
def shards(tmp_path):
    """70 rows in 3 files, one of which has a byte order mark and a blank row."""
    (tmp_path / "rows").mkdir()
    for shard in range(3):
        write_rows(tmp_path / "rows" / f"{shard}.jsonl", *(row(n) for n in range(shard, 70, 3)))
    return "data.path=rows"


def places(batches):
    return [[r.place for line in batch for r in line] for batch in batches]


def epochs(data, number):
    """The batches of the first epochs."""
    found = [[] for _ in range(number + 1)]
    for batch in data.stream:
        found[data.stream.tallies[-1].epoch].append([r.place for line in batch for r in line])
        if found[number]:
            return found[:number]
    return []


@pytest.mark.parametrize(
    "batching", ["rows", "packed", *(pytest.param(b, marks=pytest.mark.slow) for b in ("grouped", "tokens"))]
)
def test_every_row_once_an_epoch_and_shared_out_over_processes(batching, module, shards):
    data = module(*STREAM, shards, f"data.batching={batching}", "data.pack_tokens=400", "data.tokens_per_batch=600")
    held = {r.place for split in ("val", "test") for r in data.encoded[split]}
    first, second = epochs(data, 2)
    trained = Counter(place for batch in first for place in batch)
    assert set(trained.values()) == {1}
    assert not held & set(trained)
    assert sorted(trained) == sorted(place for batch in second for place in batch)
    assert first != second
    unused = 70 - len(trained) - len(held)
    assert unused < 10  # of val's share, beyond stream_held_out
    straight = places(islice(data.stream, 24))
    for ranks in (2, 3):
        data.stream.ranks, shared = ranks, []
        for rank in range(ranks):
            data.stream.rank = rank
            shared.append(places(islice(data.stream, 24 // ranks)))
        assert [batch for turn in zip(*shared, strict=True) for batch in turn] == straight


def test_processes_that_encode_ahead_change_nothing(module, shards):
    alone, ahead = module(*STREAM, shards), module(*STREAM, shards, "data.num_workers=2")
    assert list(islice(alone.stream, 30)) == list(islice(ahead.stream, 30))


@pytest.mark.parametrize("model", ["tiny_gpt2", "tiny_t5"])
def test_a_stream_goes_on_after_any_batch_without_encoding_what_is_behind(model, module, shards):
    options = (*STREAM[1:], shards, f"model={model}", "data.batching=grouped")
    straight = list(islice(module(*options).stream, 60))  # more than three epochs
    for done in (1, 5, 6, 17, 33, 48):
        stopped = module(*options)
        list(islice(stopped.stream, done + 1))  # a loader is ahead of the training
        state = json.loads(json.dumps(stopped.stream.state()))
        resumed = module(*options)
        encoded = []
        ahead = resumed.stream.preprocessor.ahead
        resumed.stream.preprocessor.ahead = lambda windows, *rest, a=ahead, e=encoded: a(
            (e.append(w) or w for w in windows), *rest
        )
        resumed.stream.resume_at(done, state)
        assert_trained(resumed.stream, done, straight)  # also if there is nothing left to train
        assert list(islice(resumed.stream, 60 - done)) == straight[done:]
        whole = [sum(t["batches"] for t in state[: n + 1]) <= done for n in range(len(state))]
        assert len(encoded) == len(resumed.stream.tallies) - sum(whole)
    assert_trained(resumed.stream, 60, straight)


def assert_trained(stream, number, batches):
    """What is counted is what the first batches hold, not the windows that they are from."""
    rows = [row for batch in batches[:number] for line in batch for row in line]
    found = stream.summary(number)
    assert (found["batches"], found["trained"]) == (number, len(rows))
    assert found["supervised_tokens"] == sum(row.supervised for row in rows)


def test_the_first_batch_needs_no_more_than_the_buffer_and_a_window(module, tmp_path):
    write_rows(tmp_path / "rows.jsonl", *(row(n) for n in range(3000)))
    data = module(*STREAM)
    next(iter(data.stream))
    assert data.row_counts.read < 100  # 3 rows of val, and some of train
    assert data.stream.tallies[0].read < 60
    assert len(data.encoded["train"]) == len(data.encoded["val"]) == 3


def test_a_bad_row_stops_at_its_place_or_is_counted_and_listed_once(module, tmp_path):
    bad = {"messages": [{"role": "user", "content": "alone"}]}
    write_rows(tmp_path / "rows.jsonl", *(bad if n in (40, 55) else row(n) for n in range(70)))
    with pytest.raises(UserError, match=r"rows\.jsonl:41: messages"):
        list(islice(module(*STREAM).stream, 30))
    data = module(*STREAM, "data.invalid=drop", "data.max_prompt_tokens=36")
    data.stream.rejected = tmp_path / "rejected.jsonl"
    for _ in range(2):  # as a run that goes on
        list(islice(data.stream, 40))
    summary = data.stream.summary(38)
    assert (summary["rows"], summary["unread"]) == (70, {"invalid": 2})
    assert summary["examples"] == summary["kept"] + summary["dropped"]["prompt too long"]
    listed = [entry["place"] for entry in read_json_lines(tmp_path / "rejected.jsonl")]
    assert {"rows.jsonl:41", "rows.jsonl:56"} < set(listed)
    assert len(listed) == len(set(listed)) > 5


def test_a_stream_of_nothing_ends(module, tmp_path):
    write_rows(tmp_path / "rows.jsonl", *(row(n) for n in range(30)))
    with pytest.raises(UserError, match="no row is left to train on"):
        module(*STREAM, "data.max_prompt_tokens=1")
    data = module(*STREAM)
    data.stream.preprocessor.truncation = type(data.truncation)(1, 1, "drop")
    with pytest.raises(UserError, match=r"no row is left to train on.*too long"):
        next(iter(data.stream))


def test_a_short_stream_without_validation_rows_is_refused(module, tmp_path):
    write_rows(tmp_path / "rows.jsonl", *(row(n) for n in range(4)))
    with pytest.raises(UserError, match=r"data\.split\.val=0\.01: no row of the stream is in val"):
        module(*STREAM, "data.split.val=0.01")


def test_what_a_stream_needs_is_said_at_once(llmft):
    code, _, err = llmft("data=mix", "model=tiny_t5", "data.streaming=true")
    assert code == 2
    assert "trainer.max_steps" in err
    assert "a mix of data sets cannot be streamed" in err


@pytest.mark.slow
def test_a_streamed_run_goes_on_as_if_it_had_not_stopped(llmft, tmp_path):
    write_rows(tmp_path / "rows.jsonl", *(row(n) for n in range(40)))
    run = (
        *STREAM,
        *("data=academic", "data.path=rows.jsonl", "scheduler=constant", "optim.lr=1e-2", "model.dropout=0.1"),
        *(
            "questions=0",
            "evaluate.rows=0",
            "report.write=false",
            "callbacks.samples=null",
            "trainer.log_every_n_steps=1",
        ),
        *("trainer.accumulate_grad_batches=2", "trainer.val_check_interval=8", "data.num_workers=1"),
    )
    assert llmft(*run, "trainer.max_steps=11", "output_dir=straight")[0] == 0
    assert llmft(*run, "trainer.max_steps=3", "output_dir=run")[0] == 2  # an interval beyond the end
    assert llmft(*run, "trainer.max_steps=7", "output_dir=run")[0] == 0
    code, _, err = llmft("resume=run", "trainer.max_steps=11")
    assert code == 0, err

    def losses(folder):
        return [
            (r["step"], r["train/loss"])
            for r in csv.DictReader((tmp_path / folder / "metrics.csv").open())
            if r["train/loss"]
        ]

    assert losses("run") == losses("straight")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    straight = json.loads((tmp_path / "straight" / "run.json").read_text())
    assert record["stream"] == straight["stream"]
    assert record["stream"]["epochs_begun"] == 3
    last = [r for r in csv.DictReader((tmp_path / "run" / "metrics.csv").open()) if r["train/tokens"]][-1]
    assert record["stream"]["supervised_tokens"] == float(last["train/tokens"])


questions = st.lists(st.text(max_size=5), min_size=1, max_size=30)


@given(questions, st.integers(0, 5), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_prompt_is_in_one_split_wherever_it_stands(texts, seed, val, test):
    held = HashSplit({"train": None, "val": val, "test": test}, seed, 100)
    examples = [Example((Turn("user", text),), str(n)) for n, text in enumerate(texts)]
    split = {}
    for example in examples:
        assert split.setdefault(example.context, held.split_of(example)) == held.split_of(example)
    assert None not in split.values()


def test_shares_of_a_stream_are_kept_to():
    held = HashSplit({"train": 0.5, "val": 0.2, "test": 0.1}, 1, 100)
    found = Counter(held.split_of(Example((Turn("user", str(n)),), "a")) for n in range(5000))
    assert {name: round(count / 5000, 1) for name, count in found.items()} == {
        "train": 0.5,
        "val": 0.2,
        "test": 0.1,
        None: 0.2,
    }


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 3))
def test_a_buffer_mixes_all_and_looks_no_further(number, buffer, seed):
    examples = [Example((), str(n)) for n in range(number)]
    mixed = [int(e.answer) for e in shuffled(examples, buffer, random.Random(seed))]
    assert sorted(mixed) == list(range(number))
    assert all(value < place + buffer for place, value in enumerate(mixed))
