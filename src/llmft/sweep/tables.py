"""The tables at the end of a sweep: in the terminal, ``sweep.csv`` and ``sweep.md``, and the leaderboard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from llmft.config.setting_names import short_names, short_value
from llmft.runs.record import read_record
from llmft.utils import csv as csv_files
from llmft.utils import files
from llmft.utils.console import Console
from llmft.utils.text import first_line, markdown, printable, unresolved

OWN_COLUMN = (
    "model",
    "data",
    "peft",
    "optim.lr",
    "seed",
    "output_dir",
    "callbacks.pruning.study",
    "callbacks.pruning.trial",
)
# In the terminal, with the settings that differ.
SHOWN = ("run", "status", "objective", "val nats/byte", "steps", "seconds")


def write_tables(folder: Path, records: Sequence[Path], settings: Sequence[Mapping[str, str]]) -> None:
    """Write ``sweep.csv``, ``sweep.md``, leaderboard and learning curve of a sweep; print what differs, the results and the best.

    Args:
        folder: The folder of the sweep.
        records: ``run.json`` of each job.
        settings: The overrides of each job, by key.
    """
    from llmft.report.leaderboard import write_leaderboard  # matplotlib
    from llmft.report.learning_curve import write_learning_curves

    differ = [key for key in dict.fromkeys(k for s in settings for k in s) if len({s.get(key) for s in settings}) > 1]
    shown = [key for key in differ if key not in OWN_COLUMN]
    rows = [
        _row(file, {key: setting.get(key) for key in shown}) for file, setting in zip(records, settings, strict=True)
    ]
    sizes: dict[Any, set[int]] = {}
    for row in rows:
        size = row.pop("validation")
        sizes.setdefault(size.get("identity"), set()).add(size.get("tokens"))
    if not any(len(tokens) > 1 for tokens in sizes.values()):  # one tokenizer: it says the same as the loss
        rows = [row | {"val nats/byte": None} for row in rows]
    write(folder, rows)
    board = write_leaderboard(folder)
    own = [c for c in ("model", "data", "peft", "lr", "seed") if len({str(r[c]) for r in rows}) > 1]
    show(folder, rows, [*own, *shown])
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for line in [*board.summary, *write_learning_curves(folder, board.runs)]:
        console.print(printable(line))
    console.print(f"leaderboard: {unresolved(str(folder / 'leaderboard.html'))}")


def show(folder: Path, rows: Sequence[Mapping[str, Any]], differing: Sequence[str]) -> None:
    """Print the settings that differ and the results."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    known = [name for name in SHOWN[1:] if any(row.get(name) is not None for row in rows)]
    names = short_names(differing)
    table = Table(
        title=f"{len(rows)} jobs in {unresolved(str(folder))}",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
    )
    for name in (SHOWN[0], *(["settings"] if names else []), *known):
        table.add_column(name, no_wrap=name != "settings", overflow="fold")
    for row in rows:
        settings = ", ".join(f"{short}={_setting(row.get(name))}" for name, short in names.items())
        table.add_row(
            *map(escape, [row["run"], *([settings] if names else []), *(_cell(row.get(name)) for name in known)])
        )
    console = Console(highlight=False, markup=False)
    console.print(table)
    for reason, runs in _reasons(rows).items():
        console.print(printable(f"{', '.join(runs)}: {reason}"), soft_wrap=True)


def _reasons(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Why jobs did not finish, and which; a search prunes many."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.get("reason") and row["status"] != "pruned":
            found.setdefault(f"{row['status']}, {_short(str(row['reason']))}", []).append(row["run"])
    return found


def _short(reason: str) -> str:
    """A reason in one line: of a list of faults its first one."""
    head, *faults = reason.splitlines() or [""]
    return f"{head}: {faults[0].strip(' -')}" if faults and head.endswith(("fault", "faults")) else first_line(reason)


def write(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``sweep.csv`` and ``sweep.md``, without empty columns."""
    columns = [
        name
        for name in dict.fromkeys(key for row in rows for key in row)
        if any(row.get(name) not in (None, "") for row in rows)
    ]
    csv_files.write(folder / "sweep.csv", [columns, *([row.get(name) for name in columns] for row in rows)])
    text = markdown([columns, *([_cell(row.get(name)) for name in columns] for row in rows)])
    files.atomic_write(folder / "sweep.md", text)


def _row(file: Path, differing: dict[str, Any]) -> dict[str, Any]:
    record, cfg = read_record(file.parent), OmegaConf.load(file.parent / "config.yaml")
    metrics = record.get("metrics", {})
    before, after = metrics.get("before", {}), metrics.get("after", {})
    size = (record.get("data") or {}).get("validation") or {}
    known = size.get("bytes") and after.get("val/loss") is not None
    return {
        "run": file.parent.name,
        **{group: OmegaConf.select(cfg, f"{group}.name") for group in ("model", "data", "peft")},
        "lr": OmegaConf.select(cfg, "optim.lr"),
        "seed": record["seed"],
        **differing,
        "status": "killed" if record["status"] == "running" else record["status"],
        "objective": record.get("objective"),
        "val nats/byte": after["val/loss"] * size["tokens"] / size["bytes"] if known else None,
        "validation": size,
        **{f"{name} before": value for name, value in before.items()},
        **after,
        "trainable": record.get("parameters", {}).get("trainable"),
        "steps": metrics.get("steps"),
        "seconds": record.get("seconds"),
        "reason": record.get("reason"),
    }


def _setting(value: Any) -> str:
    """A value of a command line, a number with three digits: a search writes eighteen."""
    try:
        return short_value(float(value)) if isinstance(value, str) and len(value) > 6 else short_value(value)
    except ValueError:
        return str(value)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value if value is not None else "")
