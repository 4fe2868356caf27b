"""Scaling of time and memory with rows, epochs, validation examples and processes. Prints a table for each.

    python benchmarks/growth.py [what=rows,epochs,validation,ranks] [sizes=1000,10000,100000] [model=smollm2_135m] [rounds=2]

Every figure is of a complete `python -m llmft` in a process of its own, on short rows that are generated here. `rows`: the same number of
steps of tiny_gpt2 whatever the number of rows; preparation is the time beyond a run of ten rows: reading, checking, tokenizing and batching
all rows, with an empty cache. Memory is that of the process itself (own) and of mapped files, which the system reclaims when it needs
memory. `epochs` and `validation`: the same at the end of each epoch, and the peak. `ranks`: steps of 8 examples of SmolLM2 by one process
with two threads and by two processes with one, in turns; seconds from the end of the warm-up to the end of the last step, by wall time
(use an idle machine) and CPU time.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import psutil
from rich.console import Console
from rich.table import Table

MIB = 2**20
WARM_UP = 4  # steps that are not counted: the first ones import and allocate
STEPS = 64  # of `rows`: four epochs of a thousand rows
COMMON = ("data=keyword_qa", "data.split.test=0", "trainer.accelerator=cpu", "baseline=false", "questions=0", "evaluate.rows=0",
          "report.write=false", "callbacks.samples=null", "callbacks.progress=null", "logger=none", "data.duplicates=keep",
          "+callbacks.probe._target_=growth.Probe", "allow_targets=[growth]")  # fmt: skip


class Probe(pl.Callback):
    """Writes the time of the steps and the memory after each epoch to the file ``$PROBE``."""

    def __init__(self) -> None:
        # wall and CPU at the end of the first step, the warm-up and the last step
        self.clocks: dict[str, tuple[float, float]] = {}
        self.tokens, self.steps = 0, 0
        self.before: tuple[float, float] = (0, 0)
        self.resident: list[tuple[float, float]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Memory when the data is prepared."""
        self.before = memory()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Read the clocks."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        now = time.time(), sum(u.ru_utime + u.ru_stime for u in used)
        self.steps += 1
        self.clocks.setdefault("first", now)
        self.clocks["last"] = now
        if self.steps <= WARM_UP:
            self.clocks["warm"] = now
        else:
            self.tokens += pl_module.window_tokens

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Memory after the epoch and its validation."""
        self.resident.append(memory())

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write one file per process."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        record = {
            "clocks": self.clocks,
            "tokens": self.tokens,
            "steps": self.steps,
            "before": self.before,
            "resident": self.resident,
            "peak": peak,
        }
        Path(f"{os.environ['PROBE']}.{trainer.global_rank}").write_text(json.dumps(record))


def memory() -> tuple[float, float]:
    """MiB of this process itself, and of mapped files."""
    info = psutil.Process().memory_info()
    return (info.rss - info.shared) / MIB, info.shared / MIB


def rows_file(folder: Path, rows: int) -> Path:
    """Rows of 15 to 40 tokens."""
    file = folder / f"{rows}.jsonl"
    with file.open("w") as out:
        for n in range(rows):
            row = {
                "question": f"Which number follows {n}?",
                "answer_keywords": [str(n + 1), "sum", "next"][: 1 + n % 3],
            }
            out.write(json.dumps(row) + "\n")
    return file


def trained(folder: Path, *overrides: str, threads: int | None = 1) -> list[dict[str, Any]]:
    """The records of a training's processes, in the order of their ranks."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        here = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": here, "PROBE": f"{run}/probe"}
        env.pop("OMP_NUM_THREADS", None)
        if threads:
            env["OMP_NUM_THREADS"] = str(threads)
        command = [sys.executable, "-m", "llmft", *COMMON, *overrides, f"output_dir={run}/run"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        if done.returncode:
            sys.exit(done.stderr)
        supervised = json.loads(Path(run, "run", "run.json").read_text())["data"]["supervised_tokens"]
        return [json.loads(f.read_text()) | {"supervised": supervised} for f in sorted(Path(run).glob("probe.*"))]


def table(title: str, *columns: str) -> Table:
    """A table of numbers."""
    made = Table(title=title, box=None)
    for name in columns:
        made.add_column(name, justify="right")
    return made


def by_rows(folder: Path, sizes: list[int]) -> Table:
    """CPU time per supervised token, of preparation and training."""
    columns = (
        "preparation, CPU µs per token",
        "training, CPU µs per token",
        "of the smallest",
        "own MiB",
        "mapped",
        "peak",
    )
    made = table(f"{STEPS} steps of 64 examples, tiny_gpt2", "rows", *columns)
    few = ("model=tiny_gpt2", "data.batch_size=64", "data.split.val=0", "data.cache=off", "scheduler.warmup_steps=0")
    least, first = 0.0, 0.0
    for rows in (10, *sizes):
        steps = f"trainer.max_steps={STEPS if rows > 10 else 1}"
        (found,) = trained(folder, *few, steps, f"trainer.max_epochs={STEPS}", f"data.path={rows_file(folder, rows)}")
        clocks = found["clocks"]
        if rows == 10:
            least = clocks["first"][1]
            continue
        training = (clocks["last"][1] - clocks["warm"][1]) / found["tokens"] * 1e6
        preparing = (clocks["first"][1] - least) / found["supervised"] * 1e6
        first = first or training
        cells = (f"{preparing:.1f}", f"{training:.1f}", f"{training / first:.2f}")
        made.add_row(f"{rows:,}", *cells, *(f"{mib:,.0f}" for mib in (*found["before"], found["peak"])))
    return made


def by_epochs(folder: Path) -> Table:
    """Resident memory at the end of epochs."""
    made = table("memory by epoch, tiny_gpt2, 512 rows, 64 for validation", "after epoch", "own MiB", "mapped", "peak")
    path = f"data.path={rows_file(folder, 512)}"
    (found,) = trained(folder, "model=tiny_gpt2", path, "data.split.val=0.125", "trainer.max_epochs=8")
    for epoch, resident in enumerate(found["resident"], start=1):
        made.add_row(str(epoch), *(f"{mib:,.0f}" for mib in resident))
    made.add_row("", "", "", f"{found['peak']:,.0f}")
    return made


def by_validation(folder: Path) -> Table:
    """Peak memory by size of the validation set; the training set stays the same."""
    made = table(
        "memory by validation set, tiny_gpt2, 256 training examples", "validation examples", "own MiB", "mapped", "peak"
    )
    for held_out in (64, 1024, 8192):
        path = f"data.path={rows_file(folder, 256 + held_out)}"
        share = f"data.split.val={held_out / (256 + held_out)}"
        (found,) = trained(folder, "model=tiny_gpt2", path, share, "trainer.max_epochs=1", "data.batch_size=32")
        made.add_row(f"{held_out:,}", *(f"{mib:,.0f}" for mib in (*found["resident"][-1], found["peak"])))
    return made


def by_ranks(folder: Path, model: str, rounds: int) -> Table:
    """One process with two threads against two with one."""
    made = table(
        f"steps of 8 examples, {model}",
        "processes",
        "threads each",
        "s per step",
        "CPU s per step",
        "against one process",
    )
    path, short = (
        f"data.path={rows_file(folder, 128)}",
        ("trainer.max_steps=10", "data.split.val=0", "scheduler.warmup_steps=0"),
    )
    ways = {1: ("data.batch_size=8",), 2: ("trainer=ddp", "trainer.accelerator=cpu", "data.batch_size=4")}
    seen: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes, options in ways.items():
            # llmft shares the cores between two processes by itself
            found = trained(folder, *options, f"model={model}", path, *short, threads=2 if processes == 1 else None)
            clocks = [(one["clocks"]["warm"], one["clocks"]["last"]) for one in found]
            wall, cpu = clocks[0][1][0] - clocks[0][0][0], sum(last[1] - warm[1] for warm, last in clocks)
            per = found[0]["steps"] - WARM_UP
            seen[processes].append((wall / per, cpu / per))
    medians = {n: [statistics.median(column) for column in zip(*turns, strict=True)] for n, turns in seen.items()}
    for processes, (wall, cpu) in medians.items():
        cells = (f"{wall:.2f}", f"{cpu:.2f}", f"{wall / medians[1][0]:.2f}")
        made.add_row(str(processes), str(2 // processes), *cells)
    return made


def main() -> None:
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    sizes = [int(size) for size in given.get("sizes", "1000,10000,100000").split(",")]
    model, rounds = given.get("model", "smollm2_135m"), int(given.get("rounds", 2))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        ways = {
            "rows": lambda: by_rows(place, sizes),
            "epochs": lambda: by_epochs(place),
            "validation": lambda: by_validation(place),
            "ranks": lambda: by_ranks(place, model, rounds),
        }
        for what in given.get("what", ",".join(ways)).split(","):
            Console(width=110).print(ways[what]())


if __name__ == "__main__":
    main()
