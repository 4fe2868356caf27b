"""Runs that are killed at random moments, resumed, and compared with the run that was left alone."""

import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tests.conftest import _command, read_json_lines
from tests.robustness.soak.strikes import STAGES, Strike, clock, strike
from tests.support.digests import digests

FAST = ("data=alpaca", "data.path=sample", "data.limit=30", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "data.batch_size=3", "trainer.accumulate_grad_batches=2",
        "model.dropout=0.1", "optim.lr=1e-2", "questions=0", "evaluate.rows=2", "evaluate.resamples=100", "generation.max_new_tokens=4", "callbacks.samples.max_new_tokens=4",
        "callbacks.samples.number=1", "callbacks.checkpoints.every_n_steps=2", "callbacks.progress=null", "data.cache=cache")  # fmt: skip
RUNS = {
    "gpt2, LoRA": ("model=tiny_gpt2", "peft=lora", "peft.dropout=0.1"),
    "t5, LoRA, two loader workers": ("model=tiny_t5", "peft=lora", "data.num_workers=2", "report.write=false"),
    "llama, full, packed": ("model=tiny_llama", "peft=none", "data.batching=packed", "data.pack_tokens=900", "data.batch_size=1", "report.write=false"),
    "gpt2, full, stream": ("model=tiny_gpt2", "peft=none", "data.streaming=true", "data.stream_buffer=10", "trainer.max_steps=8", "trainer.val_check_interval=0.5", "data.num_workers=1",
                           "report.write=false"),
    "gpt2, LoRA, sweep": ("-m", "model=tiny_gpt2", "peft=lora", "seed=1,2", "trainer.max_epochs=1", "report.write=false"),
}  # fmt: skip
# What is done with a finished run; how its outcome is compared: files whose bytes are the same, and files that are there.
AFTERWARDS = {
    "export": (("export", "run=run", "to=exported", "form=merged"), ("exported/*.safetensors", "exported/tokenizer.json")),
    "export, zipped": (("export", "run=run", "to=exported.zip", "form=adapter", "zip=true"), ()),
    "report": (("report", "run=run"), ("run/report/*.csv",)),
    "evaluate": (("evaluate", "run=run", "evaluate.rows=3", "evaluate.resamples=100", "generation.max_new_tokens=4"), ("run/predictions.jsonl",)),
    "answer": (("answer", "run=run", "questions=samples", "output=answers.jsonl", "generation.batch_size=1", "generation.max_new_tokens=4"), ("answers.jsonl",)),
}  # fmt: skip
LIBRARIES = ["llmft.commands.train", "llmft.__main__", "llmft.report.figures", "matplotlib.figure", "torch._dynamo", "peft", "sacrebleu", "rouge_score.rouge_scorer", "accelerate",
             "pandas", "tensorboard.compat", "torch.utils.tensorboard", "transformers.models.gpt2.modeling_gpt2", "transformers.models.t5.modeling_t5",
             "transformers.models.llama.modeling_llama", "bitsandbytes"]  # fmt: skip
CHAIN = 5  # a run is killed so often, at most, before it is let through
SECONDS_TO_HANG, SECONDS_TO_FOLLOW = 300, 12  # loader workers look for their parent every 5 seconds
WORKERS = "a loader worker's batch"
FINISHED = {"finished", "running", "interrupted", "failed"}


@dataclass
class Tally:
    """What has happened so far."""

    kills: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    missed: int = 0  # the run was over before the moment came
    runs: int = 0  # that were killed, resumed and compared
    reads: int = 0  # of run.json while it was written
    faults: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.kills.values())


class Broken(Exception):
    """What must not be."""


def soak(kills: int, seed: int, folder: Path, *, jobs: int = 1, until: float | None = None, say: Callable[[str], Any] = print) -> Tally:  # fmt: skip
    """Kill until ``kills`` signals have struck (or ``until``, on ``time.monotonic``); ``folder`` keeps what went wrong."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(LIBRARIES)
    straight = {name: Straight(name, overrides, folder / f"straight-{n}") for n, (name, overrides) in enumerate(RUNS.items())}  # fmt: skip
    finished = straight["gpt2, LoRA"]
    commands = [Afterwards(name, finished, folder / f"command-{n}") for n, name in enumerate(AFTERWARDS)]
    tally, lock = Tally(), threading.Lock()

    def one(number: int) -> None:
        with lock:
            if tally.total >= kills or (until and time.monotonic() > until):
                return
        chance = random.Random(f"{seed} {number}")
        expected: Any = chance.choice(commands if number % 2 else list(straight.values()))
        place = folder / f"trial-{number}"
        try:
            (again if expected in commands else trial)(expected, place, chance, tally, lock)
            shutil.rmtree(place)
        except Broken as fault:
            with lock:
                tally.faults.append(f"trial {number} ({expected.name}): {fault}")
                say(tally.faults[-1])
        with lock:
            tally.runs += 1
            if tally.runs % 10 == 0:
                say(f"{tally.total} kills, {tally.runs} runs compared, {len(tally.faults)} faults")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, range(kills * 2)))
    return tally


class Straight:
    """A run that nobody disturbed, and how often and how long each of its stages ran."""

    def __init__(self, name: str, overrides: tuple[str, ...], folder: Path) -> None:
        self.name, self.folder = name, folder
        self.overrides = tuple(sorted((*FAST, *overrides), key=lambda word: word != "-m"))  # where Hydra looks for it
        (folder / "tmp").mkdir(parents=True)
        before = partial(clock, str(folder / "tmp"), str(folder / "stages"))
        code, err = leg((*self.overrides, "output_dir=run"), folder, before)
        if code:
            raise Broken(f"the straight run of {name} ended with {code}: {err}")
        self.stages = seconds_of(folder / "stages")

    def planned(self, chance: random.Random) -> Strike:
        """A stage of it, one of its calls, a moment in it or just behind it, and a signal."""
        return planned(self.stages, chance, workers=any("num_workers" in word for word in self.overrides))


class Afterwards:
    """A command that was left alone, on a copy of a finished run."""

    def __init__(self, name: str, finished: Straight, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.arguments, self.same = AFTERWARDS[name]
        (folder / "tmp").mkdir(parents=True)
        shutil.copytree(finished.folder / "run", folder / "run")
        self.finished = finished.folder / "run"
        code, err = leg(self.arguments, folder, partial(clock, str(folder / "tmp"), str(folder / "stages")))
        if code:
            raise Broken(f"{name} ended with {code}: {err}")
        self.stages = seconds_of(folder / "stages")

    def outcome(self, folder: Path) -> dict[str, Any]:
        """What it leaves, that no clock has a part in."""
        here = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
        same = sorted(file for pattern in self.same for file in folder.glob(pattern))
        return {
            "files": sorted(str(file) for file in here if file.name != "stages" and "where-" not in file.name),
            "bytes": digests(*same),
            "report": "</html>" in (folder / "run" / "report.html").read_text(),
        }


def seconds_of(file: Path) -> dict[str, list[float]]:
    """How long each call of each stage took, as ``clock`` has written it."""
    found: dict[str, list[float]] = {}
    for line in file.read_text().splitlines():
        stage, seconds = line.split("\t")
        found.setdefault(stage, []).append(float(seconds))
    return found


def planned(stages: dict[str, list[float]], chance: random.Random, *, workers: bool = False) -> Strike:
    """A stage, one of its calls, a moment in it or just behind it, and a signal."""
    stage = chance.choice([name for name in STAGES if name in stages])
    calls = stages[stage]
    call = int(len(calls) * chance.random() ** 2)  # a resumed run has fewer of them left
    number = signal.SIGKILL if chance.random() < 0.7 else signal.SIGTERM
    worker = workers and stage == WORKERS and chance.random() < 0.7
    return Strike(stage, call + 1, chance.uniform(0, 1.3 * calls[call]), number, worker)


def again(command: Afterwards, folder: Path, chance: random.Random, tally: Tally, lock: Any) -> None:
    """Start a command on a finished run, kill it once or several times, let the last one through, and compare."""
    (folder / "tmp").mkdir(parents=True)
    shutil.copytree(command.finished, folder / "run")
    for n in range(chance.randint(1, CHAIN)):
        plan, where = planned(command.stages, chance), folder / f"where-{n}"
        code, err = leg(command.arguments, folder, partial(strike, str(folder / "tmp"), str(where), plan))
        if not _struck(plan, where, code, err, tally, lock):
            break  # it has done its work
    for made in folder.glob(
        "exported*"
    ):  # a killed process has finished it: it is complete, and refused if it is to be made again
        if command.outcome(folder)["bytes"] != command.outcome(command.folder)["bytes"]:
            raise Broken(f"{made.name} is there, and not complete")
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    code, err = leg(command.arguments, folder, partial(clock, str(folder / "tmp"), os.devnull))
    if code:
        raise Broken(f"after the kills {command.name} ended with {code}: {err[-1500:]}")
    no_orphans(folder, command.name)
    nothing_left(folder)
    expected, found = command.outcome(command.folder), command.outcome(folder)
    for name, value in expected.items():
        if found[name] != value:
            raise Broken(f"{name} differ: {str(found[name])[:600]} and not {str(value)[:600]}")


def _struck(plan: Strike, where: Path, code: int, err: str, tally: Tally, lock: Any) -> bool:
    """Count a kill and look at how the process ended; False if it was over before.

    Raises:
        Broken: It ended otherwise than a killed process does.
    """
    struck = where.exists()
    with lock:
        tally.missed += not struck
        if struck:
            tally.kills[plan.stage] += 1
            tally.signals[signal.Signals(plan.number).name + (" to a worker" if plan.worker else "")] += 1
            tally.places[where.read_text()] += 1
    # a signal may come before llmft listens to it, or when all is done; a worker may be lost when it is no longer needed
    fine = {0, 130, -signal.SIGTERM} if plan.number == signal.SIGTERM else {-signal.SIGKILL}
    fine = {0, 2} if plan.worker else fine
    if struck and code not in fine:
        raise Broken(f"{plan}: ended with {code}: {err[-1500:]}")
    if struck and code in (2, 130) and "Traceback" in err:
        raise Broken(f"{plan}: a traceback: {err[-1500:]}")
    if struck and code == 2 and "a loader worker was killed" not in err:
        raise Broken(f"{plan}: another message: {err[-1500:]}")
    return struck


def trial(straight: Straight, folder: Path, chance: random.Random, tally: Tally, lock: Any) -> None:
    """Start a run, kill it once or several times, let the last one through, and compare."""
    (folder / "tmp").mkdir(parents=True)
    sweep = straight.overrides.count("-m") > 0
    first = arguments = (*straight.overrides, "output_dir=run")
    for n in range(chance.randint(1, CHAIN)):
        plan, where = straight.planned(chance), folder / f"where-{n}"
        watch = Watch(folder / "run")
        code, err = leg(arguments, folder, partial(strike, str(folder / "tmp"), str(where), plan))
        reads = watch.end()
        with lock:
            tally.reads += reads
        _struck(plan, where, code, err, tally, lock)
        no_orphans(folder, plan)
        begun = (folder / "run" / "config.yaml").exists() and not sweep
        arguments = ("resume=run", "allow_writes=[cache]") if begun else first
    watch = Watch(folder / "run")
    code, err = leg(arguments, folder, partial(clock, str(folder / "tmp"), os.devnull))
    watch.end()
    if code:
        raise Broken(f"the resumed run ended with {code}: {err[-1500:]}")
    no_orphans(folder, "the resumed run")
    compare(straight, folder)


def leg(arguments: tuple[str, ...], cwd: Path, before: Callable[[], None]) -> tuple[int, str]:
    """Run a command line in a fork of a process that has the libraries; returns its exit code and what it said."""
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryFile() as err:
        environment = {**os.environ, "SOAK": str(cwd)}
        files = [DupFd(err.fileno()), DupFd(err.fileno())]
        process = context.Process(target=_command, args=(arguments, str(cwd), environment, before, *files))
        process.start()
        process.join(SECONDS_TO_HANG)
        if process.is_alive():
            process.kill()
            raise Broken(f"{' '.join(arguments[-2:])}: hung for {SECONDS_TO_HANG} s")
        assert process.exitcode is not None
        return process.exitcode, os.pread(err.fileno(), 1_000_000, 0).decode(errors="replace")


class Watch:
    """Reads every ``run.json`` below a folder again and again: it must be whole at every moment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.on, self.reads, self.fault = folder, True, 0, ""
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def end(self) -> int:
        """Stop looking; how often it was read.

        Raises:
            Broken: It was not whole.
        """
        self.on = False
        self.thread.join()
        self._read()
        if self.fault:
            raise Broken(self.fault)
        return self.reads

    def _look(self) -> None:
        while self.on:
            self._read()
            time.sleep(0.03)

    def _read(self) -> None:
        for file in (self.folder / "run.json", *self.folder.glob("[0-9]/run.json")):
            try:
                text = file.read_text()
            except OSError:
                continue
            self.reads += 1
            try:
                assert json.loads(text)["status"] in FINISHED
            except (ValueError, KeyError, AssertionError) as error:
                self.fault = f"{file}: {error!r}: {text[-200:]!r}"


def no_orphans(folder: Path, after: object) -> None:
    """Nothing that the run started is there a moment later.

    Raises:
        Broken: Something is.
    """
    give_up = time.monotonic() + SECONDS_TO_FOLLOW
    while left := list(_started_by(folder)):
        if time.monotonic() > give_up:
            raise Broken(f"{after}: left processes behind: {left}")
        time.sleep(0.1)


def _started_by(folder: Path) -> Iterator[str]:
    """Loader workers and encoders are forks of the run: they sit in its folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink() == folder and "State:\tZ" not in (entry / "status").read_text():
                    yield f"{entry.name} {(entry / 'cmdline').read_text()[:80]!r}"
            except OSError:
                continue


def compare(straight: Straight, folder: Path) -> None:
    """The run is the one that was left alone, and nothing is left of what was killed.

    Raises:
        Broken: It is not.
    """
    nothing_left(folder)
    _compare_runs(straight, folder)


def nothing_left(folder: Path) -> None:
    """No temporary file or folder, and no lock that is held.

    Raises:
        Broken: There is one.
    """
    left = [
        *folder.rglob("*.tmp"),
        *folder.glob(".export-*"),
        *folder.rglob("in_use"),
        *(folder / "tmp").glob("llmft-*"),
    ]
    if left:
        raise Broken(f"left behind: {[str(file.relative_to(folder)) for file in left]}")
    for file in folder.rglob("*.lock"):
        try:
            FileLock(file).acquire(timeout=0)
        except Timeout:
            raise Broken(f"{file.name} is held") from None


def _compare_runs(straight: Straight, folder: Path) -> None:
    jobs = sorted(file.parent.relative_to(straight.folder) for file in straight.folder.glob("run/**/run.json"))
    for job in jobs:
        expected, found = outcome(straight.folder / job), outcome(folder / job)
        for name, value in expected.items():
            if found[name] != value:
                raise Broken(f"{job}: {name} differs: {str(found[name])[:300]} and not {str(value)[:300]}")
    if len(jobs) > 1:
        rows = [_plain(csv.DictReader((place / "run" / "sweep.csv").open())) for place in (straight.folder, folder)]
        if rows[0] != rows[1]:
            raise Broken(f"sweep.csv: {rows[1]} and not {rows[0]}")


def outcome(run: Path) -> dict[str, Any]:
    """All of a run directory that no clock has a part in."""
    record = json.loads((run / "run.json").read_text())
    evaluation = json.loads((run / "evaluation.json").read_text())
    weights = sorted((run / "model").glob("*.safetensors"))
    return {
        "status": record["status"],
        "metrics in run.json": record["metrics"],
        "metrics.csv": _plain(csv.DictReader((run / "metrics.csv").open())),
        "steps.csv": _plain(csv.DictReader((run / "steps.csv").open())),
        "samples.jsonl": read_json_lines(run / "samples.jsonl"),
        "predictions.jsonl": digests(run / "predictions.jsonl"),
        "evaluation.json": {name: value for name, value in evaluation.items() if name != "seconds"},
        "weights": digests(*weights),
        "report.html": (run / "report.html").exists() and "</html>" in (run / "report.html").read_text(),
        "files": sorted(str(file.relative_to(run)) for file in run.rglob("*") if "tfevents" not in file.name),
    }


def _plain(rows: Any) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]
