"""Runs of a sweep, side by side: what quality costs. ``-m experiment=compare_families`` ends with it."""

import csv
import json
import logging
from pathlib import Path
from statistics import median
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from llmft.utils import csv as csv_files
from llmft.utils import files

log = logging.getLogger(__name__)

HEAD = {
    "model": "model",
    "peft": "peft",
    "trainable": "trained weights",
    "before": "loss before",
    "after": "loss after",
    "chrf": "chrF",
    "tokens": "tokens/s",
    "memory": "peak MiB",
    "seconds": "seconds",
}


class Comparison(Callback):
    """``comparison.md`` and ``comparison.csv`` beside the runs, and the same table in the terminal."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Read every run, best first."""
        folder = Path(config.hydra.sweep.dir)
        found = [row for file in folder.glob("*/run.json") if (row := _row(file))]
        found.sort(key=lambda row: (row["after"] is None, row["after"], row["model"], row["peft"]))
        if found:
            write(folder, found)


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Both files, and the table for people."""
    from rich.table import Table

    from llmft.utils.console import Console
    from llmft.utils.text import markdown

    csv_files.write(folder / "comparison.csv", [list(HEAD), *([row[name] for name in HEAD] for row in rows)])
    texts = [[_text(name, row[name]) for name in HEAD] for row in rows]
    files.write(folder / "comparison.md", markdown([list(HEAD.values()), *texts]))
    table = Table(title="what quality costs, best first")
    for name, title in HEAD.items():
        table.add_column(title, justify="left" if name in ("model", "peft") else "right")
    for row in texts:
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"comparison: {folder / 'comparison.md'}", soft_wrap=True)


def _row(file: Path) -> dict[str, Any] | None:
    """The numbers of a run that has finished; one that has not is told by the sweep's own table."""
    record = json.loads(file.read_text(encoding="utf-8"))
    if record["status"] != "finished":
        return None
    cfg, metrics = OmegaConf.load(file.parent / "config.yaml"), record["metrics"]
    return {
        "model": OmegaConf.select(cfg, "model.name"),
        "peft": OmegaConf.select(cfg, "peft.name"),
        "trainable": record["parameters"]["trainable"] / record["parameters"]["total"],
        "before": metrics["before"].get("val/loss"),
        "after": metrics["after"].get("val/loss"),
        "chrf": (metrics.get("test") or {}).get("chrf"),
        "tokens": _tokens_per_second(file.parent / "metrics.csv"),
        "memory": max(record["peak_memory_mib"].values()),
        "seconds": record["seconds"],
    }


def _tokens_per_second(file: Path) -> float | None:
    with file.open(newline="", encoding="utf-8") as rows:
        found = [row.get("train/tokens_per_second") for row in csv.DictReader(rows)]
    values = [float(value) for value in found if value]
    return median(values) if values else None


def _text(name: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if name == "trainable":
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if name in ("tokens", "memory", "seconds") else f"{value:.4g}"
