"""A run that was killed anywhere and resumed ends as the uninterrupted run: losses, learning rates, row order, samples, weights."""

import csv
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from llmft.models.backbone import tiny
from llmft.models.module import InstructionModule
from tests.conftest import chat_row, forked, read_json_lines, write_rows
from tests.guarantees.killed import at
from tests.support import twins
from tests.support.digests import digest, digests

RUN = ("data=alpaca", "data.path=sample", "data.limit=30", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "trainer.accumulate_grad_batches=2", "data.batch_size=3",
       "model.dropout=0.1", "questions=0", "evaluate.rows=0", "report.write=false", "callbacks.samples.max_new_tokens=4", "optim.lr=1e-2", "scheduler.warmup_steps=3",
       "callbacks.checkpoints.every_n_steps=2", "callbacks.early_stopping.patience=50")  # fmt: skip
# 25 training rows: 9 batches and 5 steps an epoch, the last window of one batch; checkpoints at steps 2, 4, 5, 7, 9, 10
CASES = {
    "llama-full-packed": ("model=tiny_llama", "peft=none", "data.batching=packed", "data.batch_size=1", "data.pack_tokens=900",
                          "model.shared_prefix=always", "callbacks.checkpoints.every_n_steps=1", "data.extra_val.more=more.jsonl"),
}  # fmt: skip
SLOW = {
    "t5-lora-workers": (
        "model=tiny_t5",
        "peft=lora",
        "peft.dropout=0.1",
        "data.num_workers=2",
        "data.batching=grouped",
    ),
    "gpt2-lora": ("model=tiny_gpt2", "peft=lora", "peft.dropout=0.1", "trainer.val_check_interval=0.4"),
    "t5-full-tokens": ("model=tiny_t5", "peft=none", "data.batching=tokens", "data.tokens_per_batch=900"),
    "gpt2-lora-stream": (
        "model=tiny_gpt2",
        "peft=lora",
        "data.streaming=true",
        "data.stream_buffer=10",
        "trainer.max_steps=10",
        "trainer.val_check_interval=0.2",
        "data.num_workers=1",
    ),
    "llama-qlora-8bit-adamw-plateau": (
        "model=tiny_llama",
        "peft=qlora",
        "peft.targets=all-linear",
        "peft.dropout=0.1",
        "optim=adamw_8bit",
        "scheduler=plateau",
        "scheduler.patience=1",
    ),
    "t5-lora-8bit": ("model=tiny_t5", "peft=lora_8bit", "peft.dropout=0.1"),
    "gpt2-unfreeze": ("model=tiny_gpt2", "peft=unfreeze", "peft.unit=step", "peft.schedule=[[0,1],[3,2],[6,all]]"),
    "llama-dora-teacher": ("model=tiny_llama", "peft=dora", "peft.distill_from=teacher", "peft.dropout=0.1"),
    "t5-head": ("model=tiny_t5", "peft=head"),
    "nllb-lora-packed": (
        "model=auto",
        "model.path=twin",
        "model.source_language=eng_Latn",
        "model.target_language=fra_Latn",
        "peft=lora",
        "peft.dropout=0.1",
        "data.batching=packed",
        "data.batch_size=1",
    ),
    "gemma-lora-no-validation": (
        "model=tiny_gemma",
        "peft=lora",
        "data.split.val=0",
        "callbacks.early_stopping.patience=null",
    ),
}
# after so many calls: in the middle of a window and of an epoch; when the checkpoint is complete and best.ckpt is not set yet;
# half a checkpoint written; between two windows; after a rename; in the middle of a validation
POINTS = {
    "t5-lora-workers": [("batch", 8), ("best", 1)],
    "llama-full-packed": [("write", 3), ("batch", 4)],
    "gemma-lora-no-validation": [("write", 2), ("batch", 2)],
    "slow": [("rename", 2), ("validation", 1)],
}


@pytest.fixture(autouse=True)
def _more_validation_rows(tmp_path):
    write_rows(
        tmp_path / "more.jsonl",
        *({"instruction": f"Say {n}", "input": "", "output": f"It is {n}."} for n in range(3)),
    )


def left_behind(run):
    """All that must be equal, but for what measures time."""
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    metrics = [{name: value for name, value in row.items() if "per_second" not in name} for row in rows]
    metrics += list(csv.DictReader((run / "steps.csv").open()))
    weights = digests(*(run / "model").glob("*.safetensors"))
    assert weights
    samples = read_json_lines(run / "samples.jsonl") if (run / "samples.jsonl").exists() else []
    return metrics, samples, weights


def ends_as(straight, run):
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert not list(run.rglob("*.tmp"))
    found, expected = left_behind(run), left_behind(straight)
    assert found[0] == expected[0]
    assert found[1:] == expected[1:]
    return record


def killed(folder, where, number, *arguments):
    return forked(*arguments, cwd=folder, before=partial(at, where, number)).returncode


def run_of(overrides):
    """A plateau has no warm-up."""
    return [o for o in RUN if "scheduler=plateau" not in overrides or not o.startswith("scheduler.warmup_steps")]


def straight(folder, *overrides):
    if "peft.distill_from=teacher" in overrides:
        tiny.build("llama", folder / "teacher")
    if "model.path=twin" in overrides:
        twins.build("nllb", folder / "twin")
    done = forked(*run_of(overrides), *overrides, "output_dir=straight", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "straight"


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)])
def test_resume_is_exact(case, tmp_path):
    overrides = (CASES | SLOW)[case]
    expected = straight(tmp_path, *overrides)
    points = POINTS.get(case, [*POINTS["t5-lora-workers"], *POINTS["slow"]])
    assert killed(tmp_path, *points[0], *run_of(overrides), *overrides, "output_dir=run") == -signal.SIGKILL
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    for where, number in points[1:]:
        killed(tmp_path, where, number, "resume=run")
    done = forked("resume=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = ends_as(expected, tmp_path / "run")
    assert len(record["resumed"]) == len(points)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_resume_is_exact_wherever_the_signals_fall(seed, tmp_path):
    overrides = (CASES | SLOW)[random.Random(seed).choice(sorted(CASES | SLOW))]
    expected, chance = straight(tmp_path, *overrides), random.Random(seed)
    arguments = [*run_of(overrides), *overrides, "output_dir=run"]
    for _ in range(4):
        command = [sys.executable, "-m", "llmft", *arguments]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            give_up = time.monotonic() + 60
            while not (tmp_path / "run" / "metrics.csv").exists() and time.monotonic() < give_up:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 2))
            process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        arguments = ["resume=run"]
    done = forked("resume=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ends_as(expected, tmp_path / "run")


def test_a_run_that_is_resumed_for_longer_equals_the_long_run(tmp_path, llmft):
    long = (*RUN, "model=tiny_gpt2", "peft=lora", "scheduler=constant")
    assert llmft(*long, "output_dir=straight")[0] == 0
    assert llmft(*long, "trainer.max_epochs=1", "output_dir=run")[0] == 0
    assert (tmp_path / "run" / "model").is_dir()
    code, _, err = llmft("resume=run", "trainer.max_epochs=2")
    assert code == 0, err
    assert "resume: continuing after step 5, epoch 0, batch 9" in err
    ends_as(tmp_path / "straight", tmp_path / "run")
    # and where there is nothing more to do, nothing is done
    before = (tmp_path / "run" / "metrics.csv").stat().st_mtime_ns
    code, _, err = llmft("resume=run")
    assert code == 0
    assert "nothing to do" in err
    assert (tmp_path / "run" / "metrics.csv").stat().st_mtime_ns == before


def ended_between_two_steps(run, step=None):
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "interrupted"
    last = list(csv.DictReader((run / "metrics.csv").open()))[-1]
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == int(last["step"])
    assert step is None or state["global_step"] == step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_between_two_steps_and_ends_with_130(number, tmp_path, llmft, monkeypatch):
    """The signal falls in the middle of step 2's window; nothing else saves before the 5th step."""
    step, calls = InstructionModule.training_step, []

    def training_step(*given):
        calls.append(None)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return step(*given)

    monkeypatch.setattr(InstructionModule, "training_step", training_step)
    code, _, err = llmft(*RUN, "model=tiny_gpt2", "callbacks.checkpoints.every_n_steps=null", "output_dir=run")
    assert code == 130
    assert f"llmft: interrupted; to resume: python -m llmft resume={tmp_path / 'run'}\n" in err
    assert "Traceback" not in err
    ended_between_two_steps(tmp_path / "run", 2)


@pytest.mark.slow
def test_a_signal_from_outside_ends_the_process_with_130(tmp_path):
    arguments = (*RUN, "model=tiny_gpt2", "trainer.max_epochs=500", "output_dir=run")
    command = [sys.executable, "-m", "llmft", *arguments]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "llmft: interrupted" in err
    ended_between_two_steps(tmp_path / "run")


def test_what_would_make_it_another_run_is_refused(llmft):
    assert llmft(*RUN, "model=tiny_gpt2", "trainer.max_epochs=1", "output_dir=run")[0] == 0
    code, _, err = llmft(
        "resume=run", "optim.lr=1", "model=tiny_t5", "trainer.max_epochs=2", "data=alpaca", "data.path=sample"
    )
    assert code == 2
    assert "optim.lr=1: the run has optim.lr=0.01" in err
    assert "model=tiny_t5: the run has model=tiny_gpt2" in err
    assert "2 faults" in err
    code, _, err = llmft("resume=nowhere")
    assert code == 2
    assert "resume=nowhere: no run directory" in err


def test_a_data_file_that_changed_is_refused(tmp_path, llmft, monkeypatch):
    """Its path is relative, and the run is resumed from another folder, which holds a file of the same name."""
    file = write_rows(tmp_path / "rows.jsonl", *(chat_row(f"Q{n}", "A") for n in range(40)))
    overrides = ("data=academic", "data.path=rows.jsonl", "model=tiny_gpt2", "trainer.max_epochs=1", "output_dir=run")
    assert llmft(*RUN, *overrides)[0] == 0
    write_rows(file, *(chat_row(f"Q{n}", "B") for n in range(40)))
    (tmp_path / "elsewhere").mkdir()
    write_rows(tmp_path / "elsewhere" / "rows.jsonl", chat_row("Q", "other"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = llmft(f"resume={tmp_path / 'run'}", "trainer.max_epochs=2")
    assert code == 2
    assert f"data.path={file}: has changed since the run began" in err


def test_a_full_disk_keeps_the_last_checkpoint_and_says_so(tmp_path, llmft):
    """A quota on file size stands in for the full disk: the same error from the same system call, a larger number."""
    code, _, err = llmft(
        *RUN,
        "model=tiny_gpt2",
        "peft=none",
        "trainer.max_epochs=1",
        "output_dir=run",
        "callbacks.checkpoints.every_n_steps=null",
    )
    assert code == 0, err
    size = (tmp_path / "run" / "checkpoints" / "last.ckpt").stat().st_size
    kept = digest(tmp_path / "run" / "checkpoints" / "last.ckpt")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        code, _, err = llmft("resume=run", "trainer.max_epochs=2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert "could not be written" in err
    assert os.strerror(27) in err
    assert "the previous one is kept" in err
    assert digest(tmp_path / "run" / "checkpoints" / "last.ckpt") == kept
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert llmft("resume=run", "trainer.max_epochs=2")[0] == 0
