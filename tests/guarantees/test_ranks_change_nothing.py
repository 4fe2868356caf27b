"""Two processes (gloo on the CPU) compute what one does, with full or sharded weights: no row counted twice, files written once."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import cli, read_json_lines, write_rows
from tests.support.digests import digests
from tests.support.ranks import two_ranks

# 50 training rows are 13 batches of 4: the second process has none for the last round; 5 validation rows are 2 of 4
RUN = ("data=alpaca", "data.path=sample", "data.limit=58", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "model.dropout=0", "questions=1", "evaluate.rows=0", "report.write=false", "optim.lr=1e-2",
       "generation.max_new_tokens=8", "callbacks.samples.max_new_tokens=8", "data.split={val: 0.09, test: 0.05}")  # fmt: skip
WATCHED = ("train/loss", "train/lr", "train/grad_norm", "train/tokens", "val/loss", "val/perplexity", "val/more/loss")


@pytest.fixture(autouse=True)
def _more_validation_rows(tmp_path):
    write_rows(
        tmp_path / "more.jsonl",
        *({"instruction": f"Say {n}", "input": "", "output": f"It is {n}."} for n in range(3)),
    )


def run(folder, name, *overrides):
    done = cli(*RUN, *overrides, f"output_dir={name}", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def metrics(folder):
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return [{name: float(row[name]) for name in ("step", *WATCHED) if row.get(name)} for row in rows]


def safetensors(folder):
    return load_file(next(folder.glob("*.safetensors")))


def equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


TWO = ("trainer=ddp", "trainer.accelerator=cpu")
SHARED = ("trainer=fsdp", "trainer.accelerator=cpu", "callbacks.samples.number=0", "model.shared_prefix=auto")
CASES = {
    "t5-lora": ("model=tiny_t5", "peft=lora", "peft.dropout=0", "data.extra_val.more=more.jsonl"),
    "t5-full-stream": (
        "model=tiny_t5",
        "peft=none",
        "data.streaming=true",
        "data.stream_buffer=20",
        "trainer.max_steps=9",
        "trainer.val_check_interval=0.5",
    ),
    "llama-full": ("model=tiny_llama", "peft=none", "model.shared_prefix=always"),
    "gpt2-lora-packed": (
        "model=tiny_gpt2",
        "peft=lora",
        "peft.dropout=0",
        "data.batching=packed",
        "data.pack_tokens=900",
    ),
}


@pytest.mark.parametrize("case", ["t5-lora", *(pytest.param(case, marks=pytest.mark.slow) for case in list(CASES)[1:])])
def test_ranks_change_nothing(case, tmp_path, llmft):
    code, _, err = llmft(*RUN, *CASES[case], "data.batch_size=4", "trainer.accumulate_grad_batches=2", "output_dir=one")
    assert code == 0, err
    ranks = two_ranks(*RUN, *CASES[case], *TWO, "data.batch_size=4", "output_dir=two", cwd=tmp_path)
    assert [rank.returncode for rank in ranks] == [0, 0], ranks[0].stderr
    equal(metrics(tmp_path / "two"), metrics(tmp_path / "one"))
    assert sum(rank.stdout.count("run directory:") for rank in ranks) == 1
    assert sum(rank.stderr.count("rows read") for rank in ranks) == 1
    samples = read_json_lines(tmp_path / "two" / "samples.jsonl")
    assert [(row["step"], row["place"]) for row in samples] == [
        (row["step"], row["place"]) for row in read_json_lines(tmp_path / "one" / "samples.jsonl")
    ]
    assert json.loads((tmp_path / "two" / "run.json").read_text())["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_sharded_weights_change_nothing(case, tmp_path, llmft):
    few = (f"data.limit={40 if 'stream' in case else 22}", "callbacks.samples.number=0")  # a stream splits rows by hash
    code, _, err = llmft(
        *RUN, *CASES[case], *few, "data.batch_size=4", "trainer.accumulate_grad_batches=2", "output_dir=one"
    )
    assert code == 0, err
    run(tmp_path, "two", *CASES[case], *SHARED, *few, "data.batch_size=4")
    equal(metrics(tmp_path / "two"), metrics(tmp_path / "one"))
    names = {name: safetensors(tmp_path / name / "model") for name in ("one", "two")}
    assert names["one"].keys() == names["two"].keys()
    for name, weight in names["one"].items():
        assert torch.allclose(names["two"][name], weight, atol=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "how"), [*((case, TWO) for case in CASES), ("t5-lora", SHARED), ("llama-full", SHARED)]
)
def test_two_processes_resume_exactly(case, how, tmp_path):
    common = (*CASES[case], *how, "model.dropout=0.1", "data.batch_size=4", "scheduler=constant")
    run(tmp_path, "straight", *common)
    run(tmp_path, "half", *common, "trainer.max_epochs=1")
    longer = cli("resume=half", "trainer.max_epochs=2", cwd=tmp_path)
    assert longer.returncode == 0, longer.stderr
    assert metrics(tmp_path / "half") == metrics(tmp_path / "straight")
    straight, half = (digests(*(tmp_path / name / "model").glob("*.safetensors")) for name in ("straight", "half"))
    assert straight == half
    assert straight


@pytest.mark.slow
def test_a_guard_stops_all_processes(tmp_path):
    done = cli(*RUN, *CASES["llama-full"], *TWO, "optim.lr=1e30", "scheduler=constant", "output_dir=run", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "halted at step" in done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "halted"
    assert done.stderr.count("halted at step") == 1


@pytest.mark.slow
def test_a_guard_stops_all_processes_with_sharded_weights(tmp_path):
    done = cli(
        *RUN, *CASES["llama-full"], *SHARED, "optim.lr=1e30", "scheduler=constant", "output_dir=run", cwd=tmp_path
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("halted at step") == 1


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_ends_all_processes(tmp_path):
    few = ("data.limit=16", "baseline=false", "questions=0", "callbacks.samples.number=0", "data.batch_size=4")
    script = [sys.executable, str(Path(__file__).with_name("failing_write.py"))]
    done = subprocess.run(
        [*script, *RUN, *CASES["llama-full"], *TWO, *few, "output_dir=run"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("could not be written (No space left on device); the previous one is kept") == 1
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
