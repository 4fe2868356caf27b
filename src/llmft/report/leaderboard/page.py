"""What ``leaderboard.html`` says: what the ranking is over, the best configuration, and the table."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmft.metrics.bootstrap import MIN_ROWS
from llmft.metrics.format import format_interval
from llmft.report.leaderboard import table
from llmft.report.leaderboard.ranking import UNITS, Criterion, Group
from llmft.report.leaderboard.runs import BoardRun
from llmft.report.leaderboard.shared_rows import SharedRows
from llmft.report.next_steps import without_places
from llmft.utils.shell import part

SPLITS = {"val": "validation", "train": "training", "evaluation": "evaluated"}


def content(
    folder: Path, groups: Sequence[Group], keys: Sequence[str], criterion: Criterion, shared: SharedRows | None
) -> dict[str, Any]:
    """The variables of the ``leaderboard.html`` template that are about ranked groups."""
    rows = table.page_rows(groups, keys, criterion, shared)
    return {
        "folder": str(folder),
        "criterion": criterion,
        "best": _best(groups[0], rows[0]) if groups else None,
        "rows": rows,
        "score_names": {m.name: UNITS.get(m.name, m.name) for m in shared.metrics} if shared and rows else {},
        "cost_names": [
            name for name in (rows[0]["costs"] if rows else ()) if any(row["costs"].get(name) for row in rows)
        ],
        "min_rows": MIN_ROWS,
        "has_intervals": any(row["interval"] for row in rows),
        "rows_title": rows_title(shared),
    }


def notes(groups: Sequence[Group], criterion: Criterion, shared: SharedRows | None) -> list[str]:
    """What the ranking is by and over, in sentences."""
    found = []
    if criterion.why and groups:
        how = "ranked by" if criterion.comparable else "not comparable, ordered by"
        found.append(f"{how} {criterion.name}: {criterion.why}")
    if shared and len(groups) > 1:
        of = f" (of {shared.most})" if shared.most > len(shared) else ""
        found.append(f"scores are over the {rows_title(shared)}{of}")
    elif any(run.predictions for group in groups for run in group.runs) and len(groups) > 1:
        found.append("the configurations share no evaluated rows, so their scores are not shown")
    return [*found, *_dtypes(groups)]


def _dtypes(groups: Sequence[Group]) -> Iterator[str]:
    """Which runs computed in which dtype, where that differs."""
    for number, what in enumerate(("trained", "evaluated")):
        names: dict[str, list[str]] = {}
        for run in (run for group in groups for run in group.runs):
            names.setdefault(str(run.dtypes[number] or "unknown"), []).append(run.name)
        if len(names) > 1:
            each = "; ".join(f"{', '.join(runs)} in {dtype}" for dtype, runs in names.items())
            yield f"{what} in different dtypes, which alone moves the third digit of a loss: {each}"


def best_line(groups: Sequence[Group], criterion: Criterion) -> list[str]:
    """The best of several configurations, in one line."""
    if len(groups) < 2 or not criterion.comparable:
        return []
    runs = ", ".join(run.name for run in groups[0].runs)
    score = f"{criterion.name} {table.spread(groups[0].values)}"
    return [f"best: {groups[0].label} (run {runs}), {score}" if groups[0].label else f"best: run {runs}, {score}"]


def rows_title(shared: SharedRows | None) -> str:
    """The shared rows in words."""
    if not shared:
        return ""
    rows = f"{SPLITS.get(shared.split, shared.split)} row{'s' * (len(shared) != 1)}"
    groups = len(shared.statistics)
    return f"{len(shared)} {rows} that {'both' if groups == 2 else f'all {groups}'} configurations share"


def command(run: BoardRun) -> str:
    """The command that trains a run again; "" if it is not known."""
    own = map(part, without_places(run.overrides))
    return " ".join(["python -m llmft", *own]) if run.overrides else ""


def _best(group: Group, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "label": group.label or f"run {group.runs[0].name}",
        "score": row["score"],
        "interval": format_interval(group.interval) if group.interval else "",
        "runs": row["runs"],
        "command": command(group.runs[0]),
    }
