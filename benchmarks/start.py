"""Start-up time: until llmft prints something or finishes its first step. Prints a table of wall and CPU-seconds of complete processes.

    python benchmarks/start.py [rounds=3] [only=WORD,WORD]

Every row is a process of its own, and the rows take turns. `import torch` in a bare interpreter, and the import of everything that a
training needs, are the lower bounds: on a busy machine only the ratios to them are meaningful. `first step` ends with the first
optimizer step and includes everything before it (`baseline=false questions=0`: without the evaluation of the untrained model, which is
work and not start-up). The first round is a warm-up that fills caches, and is not counted.
"""

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
from rich.console import Console
from rich.table import Table

TRAIN = ("data=alpaca", "data.path=sample", "data.batch_size=8", "callbacks.progress=null", "trainer.accelerator=cpu",
         "+callbacks.first_step._target_=start.FirstStep", "allow_targets=[start]")  # fmt: skip
BARE = ("baseline=false", "questions=0")
LLMFT = (sys.executable, "-m", "llmft")
LIBRARIES = "import torch, transformers, lightning.pytorch, peft"
CASES: dict[str, tuple[str, ...]] = {
    "import torch": (sys.executable, "-c", "import torch"),
    LIBRARIES: (sys.executable, "-c", LIBRARIES),
    "a Tab": (*LLMFT, "__complete", "data."),
    "--version": (*LLMFT, "--version"),
    "--help": (*LLMFT, "--help"),
    "train --help": (*LLMFT, "train", "--help"),
    "help=data": (*LLMFT, "help=data"),
    "--cfg job": (*LLMFT, "--cfg", "job"),
    "a mistyped key": (*LLMFT, "data.batchsize=8"),
    "a wrong value": (*LLMFT, "data.batch_size=0"),
    "a file that is not there": (*LLMFT, "data.path=nowhere.jsonl"),
    "preview, 3 rows, tiny_gpt2": (*LLMFT, "preview", "model=tiny_gpt2", "preview.rows=3"),
    "preview, 3 rows, smollm2_135m": (*LLMFT, "preview", "model=smollm2_135m", "preview.rows=3"),
    "first step, tiny_gpt2": (*LLMFT, *TRAIN, *BARE, "model=tiny_gpt2"),
    "first step, smollm2_135m": (*LLMFT, *TRAIN, *BARE, "model=smollm2_135m"),
    "first step, smollm2_135m, with baseline": (*LLMFT, *TRAIN, "model=smollm2_135m"),
}


class FirstStep(pl.Callback):
    """End the process after its first optimizer step."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The first batch is the first step."""
        os._exit(0)


def timed(command: tuple[str, ...]) -> tuple[float, float]:
    """Wall and CPU-seconds of a process and its children."""
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        where = [f"output_dir={folder}/run"] if "allow_targets=[start]" in command else []
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [*command, *where],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
        )
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 2):
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    rounds, only = int(given.get("rounds", 3)), given.get("only", "").split(",")
    cases = {name: CASES[name] for name in CASES if name.startswith("import") or any(word in name for word in only)}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, command in cases.items():
            found = timed(command)
            print(f"{name}: {found[0]:.2f} s, {found[1]:.2f} CPU-seconds", file=sys.stderr)
            if number:
                seen[name].append(found)
    table = Table(title=f"start-up, medians of {rounds}", box=None)
    for name in ("what", "wall s", "CPU s", "CPU of the libraries' import"):
        table.add_column(name, justify="left" if name == "what" else "right")
    least = statistics.median(cpu for _, cpu in seen[LIBRARIES])
    for name, found in seen.items():
        wall, cpu = (statistics.median(column) for column in zip(*found, strict=True))
        table.add_row(name, f"{wall:.2f}", f"{cpu:.2f}", f"{cpu / least:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
