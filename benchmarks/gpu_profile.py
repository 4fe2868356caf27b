"""Where the time of a training step goes on a GPU: kernels, launches, and where the host waits. Prints a Markdown table.

    python benchmarks/gpu_profile.py NAME=OVERRIDES ...  e.g. "LoRA=model=tiny_llama peft=lora"

Each training runs in this process, without evaluation, for 14 steps: 4 to warm up, 4 that count the host's waits by line
(``torch.cuda.set_sync_debug_mode``), and 6 under torch's profiler. On a CPU (a rehearsal) the same columns say what a CPU has.
"""

import collections
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.profiler import ProfilerActivity, profile

import llmft

WARM_UP, COUNTED, PROFILED = 4, 4, 6
COMMON = ("data=alpaca", "data.path=sample", "data.split={train:null,val:0,test:0}", "baseline=false", "questions=0", "evaluate.rows=0",
          "report.write=false", "callbacks.samples=null", "callbacks.progress=null", "callbacks.checkpoints.every_n_steps=null", "logger=none",
          f"trainer.max_steps={WARM_UP + COUNTED + PROFILED}", "trainer.max_epochs=-1")  # fmt: skip
HEAD = "| | ms a step | of it kernels | launches | host waits | where the host waits |\n|---|---:|---:|---:|---:|---|"


class Watch(pl.Callback):
    """Counts waits, then profiles, by the number of the step."""

    def __init__(self) -> None:
        self.steps, self.waits = 0, collections.Counter[str]()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self.profiler = profile(activities=activities)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Start what the number of the step asks for."""
        self.steps += 1
        if self.steps == WARM_UP + 1:
            _sync_debug_mode("warn")
        if self.steps == WARM_UP + COUNTED + 1:
            _sync_debug_mode("default")
            self.profiler.__enter__()

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """The last step is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.profiler.__exit__(None, None, None)

    def warned(self, message: Any, *_: Any, **__: Any) -> None:
        """Count a warning about a wait under the lines of llmft that asked for it."""
        if "synchroniz" not in str(message):
            return
        frames = [
            f for f in traceback.extract_stack() if "/llmft/" in f.filename and Path(__file__).name not in f.filename
        ]
        self.waits[
            " < ".join(f"{f.filename.rpartition('/llmft/')[2]}:{f.lineno}" for f in frames[:-3:-1]) or "elsewhere"
        ] += 1

    def row(self, name: str) -> str:
        """A row of the table."""
        events = self.profiler.events() or []
        averages = self.profiler.key_averages()
        span = (max(e.time_range.end for e in events) - min(e.time_range.start for e in events)) / 1e3
        kernels = sum(getattr(r, "self_device_time_total", 0) for r in averages) / 1e3
        launches = sum(r.count for r in averages if "LaunchKernel" in r.key)
        where = ", ".join(f"`{place}` {count / COUNTED:.1f}" for place, count in self.waits.most_common(6)) or "nowhere"
        return (
            f"| {name} | {span / PROFILED:.1f} | {kernels / span:.0%} | {launches / PROFILED:,.0f} "
            f"| {self.waits.total() / COUNTED:.1f} | {where} |"
        )


def _sync_debug_mode(mode: str) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


def measure(name: str, overrides: Sequence[str], folder: Path) -> str:
    """The row of a training.

    Args:
        name: Its label.
        overrides: Of the command line, besides ``COMMON``.
        folder: An empty one, for what it writes.
    """
    parts = llmft.build([*COMMON, f"output_dir={folder}", *overrides])
    watch = Watch()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = watch.warned
        trainer = pl.Trainer(
            **parts.trainer_settings, callbacks=[*parts.callbacks, watch], logger=False, enable_model_summary=False
        )
        trainer.fit(parts.module, datamodule=parts.datamodule)
    shutil.rmtree(folder, ignore_errors=True)
    return watch.row(name)


def main() -> None:
    print(HEAD, flush=True)
    for given in sys.argv[1:]:
        name, _, line = given.partition("=")
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(measure(name, line.split(), Path(folder, "run")), flush=True)
            except Exception as error:  # the next one is measured all the same
                print(
                    f"| {name} | failed: {type(error).__name__}: {' '.join(str(error).split())[:160]} | | | | |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
