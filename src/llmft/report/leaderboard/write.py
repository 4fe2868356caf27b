"""Write the files of a leaderboard."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from llmft.config.setting_names import label
from llmft.report.html import render
from llmft.report.leaderboard import charts, page, table
from llmft.report.leaderboard.ranking import Group, ranked
from llmft.report.leaderboard.runs import BoardRun, read_runs
from llmft.report.leaderboard.settings import differing_settings, grouped, typed_settings
from llmft.report.learning_curve.curve import learning_curves
from llmft.utils import csv as csv_files
from llmft.utils import files
from llmft.utils.errors import UserError
from llmft.utils.text import in_markdown, markdown


class Board(NamedTuple):
    """A leaderboard.

    Attributes:
        text: ``leaderboard.md``.
        summary: What ranking and scores are over, and the best configuration, in one line each.
        runs: All runs of the folder.
    """

    text: str
    summary: Sequence[str]
    runs: Sequence[BoardRun]


def write_leaderboard(folder: Path) -> Board:
    """Rank all runs below a folder; runs that differ only in their seed form one row.

    Raises:
        UserError: The folder contains no run.
    """
    runs = read_runs(folder)
    if not runs:
        raise UserError(f"runs={folder}: contains no run directory (a folder with run.json)")
    finished = [run for run in runs if run.is_finished]
    monitors = [run.monitor for run in finished]
    objective = max(monitors, key=monitors.count, default="val/loss")
    keys = differing_settings(finished)
    of_objective = [run for run in finished if run.monitor == objective]
    groups = [Group(of, label(of[0].settings, keys)) for of in grouped(of_objective, keys)]
    found, criterion, shared = ranked(groups, objective)
    left = _not_ranked(runs, [run for group in found for run in group.runs])
    notes = page.notes(found, criterion, shared)
    cells = table.columns(found, keys, objective, criterion, shared)
    text = (markdown(cells) if found else "no finished run has an objective\n") + "".join(
        f"\n{in_markdown(line)}\n" for line in (*notes, *(f"not ranked: {line}" for line in left))
    )
    files.atomic_write(folder / "leaderboard.md", text)
    csv_files.write(folder / "leaderboard.csv", cells)
    drawn = charts.draw(folder, found, objective, criterion, shared)
    if drawn.scores:
        drawn.scores.png(folder / "leaderboard.png")
    content = page.content(folder, found, keys, criterion, shared) | {"left": left, "notes": notes, "total": len(runs)}
    content["has_curve"] = bool(learning_curves(runs))  # the same commands write that page next to this one
    render(folder / "leaderboard.html", "leaderboard.html", content | {"charts": drawn, "objective": objective})
    return Board(text, [*notes, *page.best_line(found, criterion)], runs)


def _not_ranked(runs: Sequence[BoardRun], ranked_runs: Sequence[BoardRun]) -> list[str]:
    """Why runs are not in the ranking, those with the same reason in one line: ``3 (lr=1e-3), 4 (lr=0.1): failed, ...``."""
    keys = typed_settings(runs)
    found: dict[str, list[str]] = {}
    for run in runs:
        if run not in ranked_runs:
            settings = label(run.settings, keys)
            found.setdefault(_status(run), []).append(f"{run.name} ({settings})" if settings else run.name)
    return [f"{', '.join(names)}: {status}" for status, names in found.items()]


def _status(run: BoardRun) -> str:
    if run.status == "finished":
        return "finished, " + (
            "without an objective" if run.objective is None else "nothing to compare it by with the others"
        )
    # "pruned at step 5: ..." says both
    return run.reason if run.reason.startswith(run.status) else ", ".join(filter(None, (run.status, run.reason)))
