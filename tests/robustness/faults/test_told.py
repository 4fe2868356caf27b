"""What befalls a run from outside: one clear message, the right exit code, and what was good is kept."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from llmft.models.module import InstructionModule
from llmft.utils.lock import DirectoryLock
from tests.conftest import chat_row, forked, write_rows
from tests.guarantees.test_resume_is_exact import left_behind
from tests.robustness.faults import full_disk, worse

SMALL = ("model=tiny_gpt2", "data=academic", "data.path=rows.jsonl", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "data.batch_size=4", "questions=0",
         "evaluate.rows=0", "report.write=false", "callbacks.samples.number=0", "callbacks.checkpoints.every_n_steps=2", "callbacks.progress=null", "model.dropout=0.1")  # fmt: skip


def rows(folder: Path, answer: str = "A") -> Path:
    return write_rows(folder / "rows.jsonl", *(chat_row(f"Q{n}", answer) for n in range(24)))


def record(run: Path):
    return json.loads((run / "run.json").read_text())


def checkpoint(run: Path) -> int:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def one_message(err: str, *parts: str) -> None:
    told = [line for line in err.splitlines() if line.startswith("llmft: ")]
    assert len(told) == 1, err
    for part in parts:
        assert part in told[0]
    assert "Traceback" not in err


def at_call(monkeypatch, number, what):
    """Do something in the middle of the ``number``-th training batch."""
    real, calls = InstructionModule.training_step, []

    def training_step(*given):
        calls.append(None)
        if len(calls) == number:
            what()
        return real(*given)

    monkeypatch.setattr(InstructionModule, "training_step", training_step)


# --- disks --------------------------------------------------------------------------------------------------------------

FULL = {
    ("checkpointing", 2): "checkpoints/last.ckpt: the checkpoint of step 4 could not be written (No space left on device); the previous one is kept. Free some space and continue with resume=",
    ("metrics", 2): "could not be written (No space left on device); ",
    ("encoding", 1): "data.cache=disk/cache: cannot be used ([Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device); data.cache=DIR or data.cache=off",
    ("model/", 1): "could not be written (No space left on device); the checkpoint of step 12 is kept. Free some space and continue with resume=",
    ("training", 20): "could not be written (No space left on device); there is no checkpoint yet. Free some space and continue with resume=",
    ("config.yaml", 1): "run/config.yaml",
}  # fmt: skip


@pytest.mark.parametrize(
    "where", [next(iter(FULL)), *(pytest.param(w, marks=pytest.mark.slow) for w in list(FULL)[1:])]
)
def test_a_full_disk(where, tmp_path):
    """A tmpfs that really is full from a moment of the run on; then there is room again, and it goes on."""
    (tmp_path / "disk").mkdir()
    rows(tmp_path)
    # without a checkpoint in between it is the logger that meets the full disk first
    long = ("data.split.val=0", "trainer.max_epochs=16", "callbacks.checkpoints.every_n_steps=null")
    fills = partial(full_disk.run_on_a_disk_that_fills_up, str(tmp_path / "disk"), *where)
    line = (*SMALL, *(long if where[0] == "training" else ()), "data.cache=disk/cache", "output_dir=disk/run")
    done = forked(*line, cwd=tmp_path, before=fills)
    if done.returncode == full_disk.NOT_ALLOWED:
        pytest.skip("this system does not let us mount a tmpfs")
    assert "of the stored config is not used" not in done.stderr  # the command line allows its cache
    first = done.stderr.partition("\nresume: ")[0].partition("\ncache: ")[0]
    assert done.returncode == 2, done.stderr
    one_message(first, FULL[where])
    after = tmp_path / "after"
    assert not list(after.rglob("*.tmp"))
    assert not (after / "in_use").exists()
    if where[0] == "config.yaml":
        assert not list(after.iterdir())
        return
    assert record(after)["status"] in ("running", "failed")
    if (after / "checkpoints" / "last.ckpt").exists():
        assert checkpoint(after) in (2, 4, 12)
    assert (tmp_path / "code").read_text() == "0"
    assert record(tmp_path / "resumed")["status"] == "finished"


def test_a_folder_that_nobody_may_write_to(tmp_path):
    (tmp_path / "disk").mkdir()
    rows(tmp_path)
    done = forked(
        *SMALL, "output_dir=disk/run", cwd=tmp_path, before=partial(full_disk.read_only, str(tmp_path / "disk"))
    )
    if done.returncode == full_disk.NOT_ALLOWED:
        pytest.skip("this system does not let us mount a tmpfs")
    assert done.returncode == 2
    one_message(done.stderr, "output_dir='disk/run': cannot be made", "Read-only file system")


# --- data files, owners, memory, clocks: one run of two checkpoints, copied for each -----------------------------------------


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """A run that was killed after the checkpoint of step 4, and the folder that it lies in; and the one that was not."""
    folder = tmp_path_factory.mktemp("halfway")
    rows(folder)
    assert forked(*SMALL, "output_dir=straight", cwd=folder).returncode == 0
    code = forked(*SMALL, "output_dir=run", cwd=folder, before=worse.die_in_batch_five).returncode
    assert code == -signal.SIGKILL
    assert checkpoint(folder / "run") == 4
    return folder


@pytest.fixture
def run(halfway, tmp_path):
    for name in ("run", "straight"):
        shutil.copytree(halfway / name, tmp_path / name)
        began = record(tmp_path / name) | {"cwd": str(tmp_path)}  # a relative data.path is looked for there too
        (tmp_path / name / "run.json").write_text(json.dumps(began))
    shutil.copy(halfway / "rows.jsonl", tmp_path)
    return tmp_path / "run"


def test_a_data_file_that_has_gone(run, llmft, tmp_path):
    (tmp_path / "rows.jsonl").unlink()
    code, _, err = llmft("resume=run")
    assert code == 2
    one_message(err, f"data.path=rows.jsonl: no such file (looked in {tmp_path})")
    assert checkpoint(run) == 4


def test_a_data_file_that_has_changed(run, llmft, tmp_path):
    rows(tmp_path, "B")
    code, _, err = llmft("resume=run")
    assert code == 2
    one_message(err, "data.path=rows.jsonl: has changed since the run began", "put the old file back")
    assert checkpoint(run) == 4


def test_a_second_run_in_the_same_folder(run, llmft):
    pid = os.fork()
    if not pid:
        DirectoryLock(run)
        time.sleep(600)  # it is killed before
        os._exit(0)
    try:
        while not (run / "in_use").exists() or not (run / "in_use").read_text():
            time.sleep(0.01)
        before = (run / "run.json").read_bytes()
        for arguments in (("resume=run",), (*SMALL, "output_dir=run")):
            code, _, err = llmft(*arguments)
            assert code == 2
            one_message(err, "run: another process is writing there", f"process {pid} on ", "choose another output_dir")
        assert (run / "run.json").read_bytes() == before
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    code, _, err = llmft(*SMALL, "output_dir=run")
    assert code == 2
    one_message(err, "run: holds a run already")
    assert not (run / "in_use").exists()


def test_a_run_that_was_killed_before_its_first_record_starts_anew(run, llmft):
    (run / "run.json").unlink()
    shutil.rmtree(run / "checkpoints")
    code, _, err = llmft("resume=run", "trainer.max_steps=1")
    assert code == 0, err
    assert record(run)["status"] == "finished"


@pytest.mark.usefixtures("run")
def test_a_report_that_a_kill_cut_off_is_written_by_the_next_start(llmft, tmp_path, monkeypatch):
    finished = tmp_path / "straight"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    left = [finished / "in_use", finished / "model" / "README.md.tmp", tmp_path / "tmp" / "llmft-killed" / "in_use"]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    config = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(config.replace("  write: false", "  write: true"))
    code, _, err = llmft("resume=straight")
    assert code == 0, err
    assert "nothing to do" in err
    assert "</html>" in (finished / "report.html").read_text()
    assert not [file for file in left if file.exists()]


def test_out_of_memory_in_a_step(run, llmft, monkeypatch):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    at_call(monkeypatch, 2, full)
    code, _, err = llmft("resume=run")
    assert code == 2
    one_message(err, "out of memory in step 6: CUDA out of memory. Tried to allocate 20.00 GiB")
    assert "the checkpoint of step 4 is kept; resume=" in err
    assert "cheapest change:" in err
    assert checkpoint(run) == 4


def test_a_loader_worker_that_the_system_kills(run, llmft, monkeypatch):
    def kill():
        workers = multiprocessing.active_children()
        assert workers
        for worker in workers:
            worker.kill()
            worker.join()

    at_call(monkeypatch, 3, kill)  # the first batch of an epoch: more are to come than are fetched ahead
    code, _, err = llmft("resume=run", "data.num_workers=1")
    assert code == 2
    one_message(err, "data.num_workers=1: a loader worker was killed", "the checkpoint of step 6 is kept", "resume=")
    assert record(run)["status"] == "failed"
    assert checkpoint(run) == 6


@pytest.mark.slow
def test_an_encoder_that_the_system_kills(tmp_path):
    rows(tmp_path)
    done = forked(*SMALL, "data.cache=cache", "output_dir=run", cwd=tmp_path, before=worse.lose_an_encoder)
    assert done.returncode == 2, done.stderr
    one_message(done.stderr, "data.processes=2: one of them was killed, probably out of memory; try data.processes=1")
    assert not list((tmp_path / "cache").glob("*tmp*"))


@pytest.mark.slow
def test_a_clock_that_jumps_back(run, tmp_path):
    """By a day, in the middle of the resumed run, which begins an hour before the one that it takes up had ended."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = forked("resume=run", cwd=tmp_path, before=worse.turn_the_clock_back)
    assert done.returncode == 0, done.stderr
    assert record(run)["seconds"] > 0
    table = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    for name in ("train/tokens_per_second", "train/rows_per_second"):
        values = [row[table[0].index(name)] for row in table[1:]]
        assert all(float(value) > 0 for value in values if value), values
    assert left_behind(run) == left_behind(tmp_path / "straight")
    reader = EventAccumulator(str(run / "tensorboard"))
    reader.Reload()
    assert reader.Scalars("train/loss")  # not all: it takes the files in the order of their names, which hold the time


@pytest.mark.slow
def test_a_slow_network_disk(run, tmp_path):
    """Every flush takes 0.3 s; SIGTERM falls into one. Nothing times out, and nothing is lost."""
    done = forked("resume=run", cwd=tmp_path, before=worse.slow_disk)
    assert done.returncode == 130, done.stderr
    assert record(run)["status"] == "interrupted"
    assert checkpoint(run) == 6
    done = forked("resume=run", cwd=tmp_path, before=worse.slow_writes)
    assert done.returncode == 0, done.stderr
    assert left_behind(run) == left_behind(tmp_path / "straight")


# --- processes ----------------------------------------------------------------------------------------------------------


def two(folder: Path, fault: str) -> subprocess.CompletedProcess[str]:
    rows(folder)
    line = (*SMALL, "trainer=ddp", "trainer.accelerator=cpu", "baseline=false", "output_dir=run")
    script = [sys.executable, str(Path(worse.__file__)), fault]
    return subprocess.run([*script, *line], cwd=folder, capture_output=True, text=True, check=False, timeout=300)


def nobody_is_left(folder: Path) -> None:
    give_up = time.monotonic() + float(os.environ.get("LLMFT_TEST_PATIENCE", "60"))
    while left := there(folder):
        assert time.monotonic() < give_up, left
        time.sleep(0.1)


def there(folder: Path) -> list[int]:
    """The processes that sit in a folder."""
    return [int(e.name) for e in Path("/proc").glob("[0-9]*") if _cwd(e) == folder]


def _cwd(entry: Path) -> Path | None:
    try:
        return (entry / "cwd").readlink()
    except OSError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("first", ["waits", "is_busy"])
def test_a_process_of_several_that_is_killed(first, tmp_path):
    """The first one is in a collective, which fails; or it is busy with something else, and its watch ends it."""
    done = two(tmp_path, f"lost_rank_{first}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("llmft: process 2 of 2 was killed by SIGKILL, probably out of memory") == 1
    assert record(tmp_path / "run")["status"] == "failed"
    nobody_is_left(tmp_path)


@pytest.mark.slow
def test_the_first_process_of_several_that_is_killed_leaves_nobody_behind(tmp_path):
    done = two(tmp_path, "lost_first")
    assert done.returncode == -signal.SIGKILL
    assert record(tmp_path / "run")["status"] == "running"
    nobody_is_left(tmp_path)
    assert checkpoint(tmp_path / "run") == 3  # the end of the first epoch
