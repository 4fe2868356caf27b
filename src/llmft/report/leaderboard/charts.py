"""The figures of a leaderboard: scores with intervals, validation curves, and what a search found."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.metrics.format import format_number
from llmft.report.figures import SIZE, Draw, Figure
from llmft.report.leaderboard import search
from llmft.report.leaderboard.ranking import UNITS, Criterion, Group
from llmft.report.leaderboard.shared_rows import SharedRows
from llmft.utils.text import printable

MOST = 20  # groups in a figure
WIDEST = 58  # characters of a name above its bar


@dataclass(frozen=True)
class Charts:
    """The figures; None for one without data.

    Attributes:
        scores: What groups are ranked by.
        on_rows: A score over the shared rows, if that is something else.
        curves: The objective over steps.
        search: Importance of the searched settings, and all trials as parallel coordinates.
    """

    scores: Figure | None
    on_rows: Figure | None
    curves: Figure | None
    search: Sequence[Figure]


def draw(
    folder: Path, groups: Sequence[Group], objective: str, criterion: Criterion, shared: SharedRows | None
) -> Charts:
    """The figures of ranked groups."""
    shown = groups[:MOST]
    on_rows = None
    if shared and criterion.metric and not criterion.over_rows and all(group.number is not None for group in shown):
        on_rows = _on_rows(shown, criterion.metric, shared)
    return Charts(
        _scores(shown, criterion) if len(shown) > 1 else None,
        on_rows if len(shown) > 1 else None,
        _curves(shown, objective, criterion),
        search.figures(folder, objective),
    )


def _scores(groups: Sequence[Group], criterion: Criterion) -> Figure:
    """The score of each group: with its interval over rows, or the standard deviation over its seeds."""
    intervals = [group.interval or _deviation(group) for group in groups]
    lines = [(_name(group), group.value, ends) for group, ends in zip(groups, intervals, strict=True)]
    over_seeds = any(len(group.values) > 1 for group in groups)
    what = "95 % intervals over shared rows" if criterion.over_rows else "± standard deviation over seeds" * over_seeds
    title = f"{criterion.name}, {criterion.better} is better{f'; lines: {what}' if what else ''}"
    return _dots("leaderboard", title, criterion.name, lines)


def _on_rows(groups: Sequence[Group], metric: str, shared: SharedRows) -> Figure:
    entries = [shared.scores[group.number or 0][metric] for group in groups]
    lines = [(_name(g), e["tuned"], e["tuned_interval"]) for g, e in zip(groups, entries, strict=True)]
    name = UNITS.get(metric, metric)
    title = f"{name} over the {len(shared)} shared rows; lines: 95 % intervals"
    return _dots("shared_rows", title, name, [line for line in lines if line[1] is not None])


def _deviation(group: Group) -> tuple[float, float] | None:
    if len(group.values) < 2:
        return None
    deviation = statistics.stdev(group.values)
    return group.value - deviation, group.value + deviation


def _name(group: Group) -> str:
    name = " ".join(printable(f"{group.rank}  {group.label or f'run {group.runs[0].name}'}").split())
    return name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…"


def _dots(name: str, title: str, label: str, lines: Sequence[tuple[str, float, Sequence[float] | None]]) -> Figure:
    """A line for each group: its name, a dot at its score, and its interval; the best is on top."""

    def paint(axes: Any, colors: Mapping[str, str]) -> None:
        for row, (text, value, ends) in enumerate(lines):
            color = colors["second" if row == 0 else "first"]
            if ends:
                axes.plot(list(ends), [row, row], color=color, linewidth=6, alpha=0.35, solid_capstyle="butt")
            axes.plot([value], [row], marker="o", markersize=6, color=color)
            place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "fontsize": 9}
            axes.annotate(text, (0, row), xytext=(1, 7), color=colors["ink"], **place)
            axes.annotate(format_number(value), (1, row), xytext=(0, 7), ha="right", color=colors["muted"], **place)
        axes.axvline(lines[0][1], color=colors["second"], linewidth=0.8, linestyle=":")
        axes.set_ylim(len(lines) - 0.6, -0.8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
        axes.margins(x=0.04)

    def described(value: float, ends: Sequence[float] | None) -> str:
        return f"{value:.4g} ({ends[0]:.4g} to {ends[1]:.4g})" if ends else f"{value:.4g}"

    values = "; ".join(f"{text} {described(value, ends)}" for text, value, ends in lines)
    return Figure(name, title, values, paint, (SIZE[0], 0.9 + 0.42 * len(lines)))


def _curves(groups: Sequence[Group], objective: str, criterion: Criterion) -> Figure | None:
    """The objective of every run over its steps; the best group is drawn in color."""
    drawn = [
        (group, run.curve, run) for group in groups for run in group.runs if run.curve and len(run.curve.steps) > 1
    ]
    if not drawn:
        return None
    lines = [
        (group.rank, curve.steps, [criterion.of_objective(run, value) for value in curve.values])
        for group, curve, run in drawn
    ]
    name = criterion.name if criterion.per_byte else objective
    # nats per token of different tokenizers: drawn, since their shape says something, with the reason beside
    unequal = criterion.over_rows or not criterion.comparable
    title = f"{name} over optimizer steps; numbers are ranks{' (heights cannot be compared)' if unequal else ''}"
    values = "; ".join(f"{rank}: {values[0]:.4g} to {values[-1]:.4g}" for rank, _, values in lines)
    return Figure("curves", title, values, _overlaid(lines, name), (SIZE[0], 0.9 + 0.42 * max(6, min(len(groups), 9))))


def _overlaid(lines: Sequence[tuple[int, Sequence[int], Sequence[Any]]], label: str) -> Draw:
    def paint(axes: Any, colors: Mapping[str, str]) -> None:
        from matplotlib.ticker import MaxNLocator

        ends: dict[int, tuple[int, float]] = {}
        for rank, steps, values in reversed(lines):  # the best on top
            width, alpha = (2.0, 1.0) if rank == 1 else (1.3, 0.85)
            axes.plot(steps, values, color=colors[_role(rank)], linewidth=width, alpha=alpha)
            ends[rank] = steps[-1], values[-1]
        place = {"textcoords": "offset points", "xytext": (4, -3), "fontsize": 9, "annotation_clip": False}
        for rank, (step, height) in _apart(ends, 0.05 * abs(axes.get_ylim()[1] - axes.get_ylim()[0])).items():
            axes.annotate(str(rank), (step, height), color=colors[_role(rank)], **place)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(label)

    return paint


def _role(rank: int) -> str:
    return {1: "second", 2: "first"}.get(rank, "third")


def _apart(ends: Mapping[int, tuple[int, float]], gap: float) -> dict[int, tuple[int, float]]:
    """The ends of lines with their heights moved apart, so that a number does not cover another."""
    found, last = {}, -math.inf
    for rank, (step, height) in sorted(ends.items(), key=lambda item: item[1][1]):
        last = max(height, last + gap)
        found[rank] = step, last
    return found
