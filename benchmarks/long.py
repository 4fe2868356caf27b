"""A long training of a tiny model: does memory leak, do files stay open, how large do the log and the metrics get?

    nice -n 10 python benchmarks/long.py --steps 20000 [--folder DIR]

With fewer than about 5,000 steps the warm-up hides the slope. Prints a table of resident memory and open files by step, the slope of the memory, and the size of the files. Exits with 1 if
memory grows by 1 MiB or more in 1,000 steps, more files are open at the end, or a file is longer than its steps allow.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

LOGGED = 100  # steps between two rows of metrics.csv
WARM = 0.2  # share of the steps that is warm-up: what is allocated once is no leak
OVERRIDES = ("model=tiny_gpt2", "data=academic", "prompt=plain", "data.batch_size=2", "trainer.max_epochs=-1", f"trainer.log_every_n_steps={LOGGED}", "scheduler=constant",
             "questions=0", "evaluate.rows=0", "report.write=false", "callbacks.progress=null", "callbacks.samples.max_new_tokens=4", "data.cache=off")  # fmt: skip


class Seen(NamedTuple):
    step: int
    mib: float
    files: int


def measure(folder: Path, steps: int) -> tuple[list[Seen], float]:
    """Train in ``folder`` and sample the process until it ends; also returns its CPU-seconds."""
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n % 7}"}]}
        for n in range(4000)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        sys.executable,
        "-m",
        "llmft",
        *OVERRIDES,
        "data.path=rows.jsonl",
        f"trainer.max_steps={steps}",
        "output_dir=run",
    ]
    found: list[Seen] = []
    with (
        (folder / "err").open("w") as err,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=err) as process,
    ):
        while process.poll() is None:
            time.sleep(0.5)
            if (step := last_step(folder / "run" / "metrics.csv")) and (not found or found[-1].step != step):
                try:
                    found.append(
                        Seen(step, resident(process.pid), len(list(Path(f"/proc/{process.pid}/fd").iterdir())))
                    )
                except OSError:  # it has just ended
                    break
    if process.returncode:
        sys.exit(f"the training ended with {process.returncode}: {(folder / 'err').read_text()[-2000:]}")
    return found, sum(os.times()[2:4])


def resident(pid: int) -> float:
    """Resident set of a process, in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def last_step(file: Path) -> int:
    lines = file.read_text().splitlines() if file.exists() else []
    return int(lines[-1].split(",")[0]) if len(lines) > 1 and lines[-1][:1].isdigit() else 0


def slope(found: list[Seen]) -> float:
    """MiB per 1,000 steps, by least squares after the warm-up."""
    late = [seen for seen in found if seen.step > WARM * found[-1].step]
    return float(np.polyfit([seen.step for seen in late], [seen.mib for seen in late], 1)[0]) * 1000


def events(run: Path) -> tuple[int, int, int]:
    """Number of loss scalars that TensorBoard reads, the step of the last, and bytes of its files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    loss = reader.Scalars("train/loss")
    return len(loss), loss[-1].step, sum(file.stat().st_size for file in (run / "tensorboard").iterdir())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="long-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    found, seconds = measure(folder, given.steps)
    run = folder / "run"
    print("|  step | resident MiB | open files |\n|---|---|---|")
    for seen in found[:: max(1, len(found) // 10)]:
        print(f"| {seen.step:,} | {seen.mib:.1f} | {seen.files} |")
    rows = len(list(csv.DictReader((run / "metrics.csv").open())))
    validated = sum(bool(row.get("val/loss")) for row in csv.DictReader((run / "metrics.csv").open()))
    lines = len((run / "log.txt").read_text().splitlines())
    scalars, last, size = events(run)
    warm = next(seen for seen in found if seen.step > WARM * found[-1].step)
    grown, opened, most = slope(found), found[-1].files - warm.files, given.steps // LOGGED + validated + 2
    print(f"\n{given.steps:,} steps, {seconds:.0f} CPU seconds, {len(found)} samples")
    print(f"memory: {grown:+.3f} MiB per 1,000 steps; open files: {opened:+d}; log.txt: {lines} lines")
    print(f"metrics.csv: {rows} rows, at most {most} expected ({(run / 'metrics.csv').stat().st_size:,} bytes)")
    print(f"TensorBoard: {scalars} losses, the last at step {last:,} ({size:,} bytes)")
    right = grown < 1 and opened <= 0 and rows <= most and lines < 100 and last == given.steps and scalars <= most
    print("all within bounds" if right else "OUT OF BOUNDS")
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
