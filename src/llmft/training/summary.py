"""What a run ends with: before and after, three questions, and where everything is."""

import ctypes
import gc
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from llmft.data.base import InstructionDataModule
from llmft.evaluation.show import show as show_scores
from llmft.generation import Answer
from llmft.printable import printable
from llmft.records import Example
from llmft.report import series
from llmft.report.series import when_to_stop
from llmft.run import RunDirectory
from llmft.terminal import Console

# Where Linux lets a process forget its largest resident set.
FORGET = Path("/proc/self/clear_refs")


def forget_peak_memory() -> None:
    """Start to measure the largest resident set anew, so that each job of a sweep in one process has its own.

    What the GPU held is measured anew, too. A system without that keeps what was.
    """
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
    with suppress(OSError):
        FORGET.write_text("5", encoding="ascii")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mib() -> dict[str, float]:
    """The largest resident set so far, and what the GPU held, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = {"cpu": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated() / 2**20
    return {name: round(value, 1) for name, value in peak.items()}


def show_audit(data: InstructionDataModule) -> None:
    """Print what the rows of each split are like, and how long they are."""
    if data.audit:
        console = Console(highlight=False)
        console.print(data.audit.table())
        console.print(data.audit.histogram())


def show(
    run: RunDirectory,
    metrics: dict[str, Any],
    questions: Sequence[Example],
    before: Sequence[Answer],
    after: Sequence[Answer],
    scores: dict[str, Any] | None,
    decided_by: tuple[str, str],
) -> None:
    """Print the end table; ``decided_by`` is the metric that chose the kept weights, and its mode."""
    console = Console(highlight=False)
    if metrics["after"]:
        console.print(_numbers(metrics))
    for number, example in enumerate(questions):
        console.print(_question(example, before[number] if before else None, after[number]))
    if scores:
        show_scores(scores, console)
    if advice := when_to_stop(series.read(run.path / "metrics.csv"), *decided_by):
        console.print(Text(advice), soft_wrap=True)
    console.print(Text.assemble(("run directory: ", "bold"), str(run.path)), soft_wrap=True)
    if (run.path / "report.html").is_file():
        console.print(Text.assemble(("report: ", "bold"), str(run.path / "report.html")), soft_wrap=True)
    if run.model.is_dir():
        console.print(Text(f'ask it: python -m llmft answer run={run.path} question="..."'), soft_wrap=True)


def _numbers(metrics: dict[str, Any]) -> Table:
    table = Table(title=f"validation, before and after {metrics['steps']} steps (best: step {metrics['best_step']})")
    table.add_column("metric")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for name, value in sorted(metrics["after"].items()):
        table.add_row(name, f"{metrics['before'][name]:.4f}" if name in metrics["before"] else "-", f"{value:.4f}")
    return table


def _question(example: Example, before: Answer | None, after: Answer) -> Table:
    table = Table(show_header=False, expand=True)
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("text", ratio=1, overflow="fold")
    rows = {"question": example.context[-1].message()["content"], "reference": example.answer}
    rows |= {"base": _told(before)} if before else {}
    for name, text in (rows | {"tuned": _told(after)}).items():
        table.add_row(name, Text(printable(text)))
    return table


def _told(answer: Answer) -> str:
    return answer.text if answer.ended else f"{answer.text} [cut at {answer.tokens} tokens]"
