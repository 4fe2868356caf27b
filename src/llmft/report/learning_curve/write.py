"""Write the files of the learning curves of a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llmft.metrics.format import format_number
from llmft.report.figures import Figure
from llmft.report.html import render
from llmft.report.leaderboard.runs import BoardRun
from llmft.report.learning_curve.curve import RULE, LearningCurve, learning_curves
from llmft.utils import csv as csv_files

NAME = "learning_curve"
COLUMNS = ("fraction", "examples", "seeds", "mean", "deviation")
COLORS = {"More rows": "green", "Not decided": "amber", "No extrapolation": "amber"}


def write_learning_curves(folder: Path, runs: Sequence[BoardRun]) -> list[str]:
    """Write ``learning_curve.html``, ``.csv`` and ``.png``, if runs below a folder differ in ``data.train_fraction``.

    Args:
        folder: Where the files are written.
        runs: Of the folder, as its leaderboard reads them.

    Returns:
        A sentence for each curve, and where the page is; empty if there is no curve.
    """
    curves = learning_curves(runs)
    if not curves:
        return []
    drawn = [_figure(curve, number) for number, curve in enumerate(curves, start=1)]
    for figure in drawn:
        figure.png(folder / f"{figure.name}.png")
    csv_files.write(folder / f"{NAME}.csv", _table(curves))
    page = {
        "folder": str(folder),
        "curves": [
            {
                "label": curve.label,
                "color": COLORS.get(curve.answer, ""),
                "sentence": curve.sentence,
                "figure": figure,
                "metric": curve.metric,
                "rows": [_shown(row) for row in curve.rows()],
            }
            for curve, figure in zip(curves, drawn, strict=True)
        ],
        "rule": RULE,
    }
    render(folder / f"{NAME}.html", f"{NAME}.html", page)
    lines = [f"{curve.label}: {curve.sentence}" if curve.label else curve.sentence for curve in curves]
    return [*lines, f"learning curve: {folder / f'{NAME}.html'}"]


def _table(curves: Sequence[LearningCurve]) -> list[list[Any]]:
    rows = [(curve, row) for curve in curves for row in curve.rows()]
    return [
        ["curve", *COLUMNS, "runs"],
        *(
            [curve.label, *(row[name] for name in COLUMNS), " ".join(run.name for run in row["runs"])]
            for curve, row in rows
        ),
    ]


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    deviation = "" if row["deviation"] is None else f" ± {format_number(row['deviation'])}"
    runs = [(run.name, f"{quote(run.name)}/report.html" if run.has_report else None) for run in row["runs"]]
    return {**row, "loss": f"{format_number(row['mean'])}{deviation}", "runs": runs}


def _figure(curve: LearningCurve, number: int) -> Figure:
    """Runs as dots, their mean and standard deviation over seeds, and the fitted power law up to twice the rows."""

    def draw(axes: Any, colors: Mapping[str, str]) -> None:
        from matplotlib.ticker import NullLocator

        rows = curve.rows()
        sizes, means = [row["examples"] for row in rows], [row["mean"] for row in rows]
        axes.set_xscale("log", base=2)
        if any(row["deviation"] is not None for row in rows):
            ends = [(row["mean"] - (row["deviation"] or 0), row["mean"] + (row["deviation"] or 0)) for row in rows]
            axes.fill_between(
                sizes,
                *zip(*ends, strict=True),
                color=colors["first"],
                alpha=0.16,
                linewidth=0,
                label="± deviation over seeds",
            )
        axes.plot(
            [p.examples for p in curve.points], [p.loss for p in curve.points], "o", markersize=3, color=colors["first"]
        )
        axes.plot(sizes, means, color=colors["first"], linewidth=1.6, label=curve.metric)
        ticks = list(sizes)
        if found := curve.extrapolation:
            ticks.append(2 * found.examples)
            steps = [sizes[0] * (ticks[-1] / sizes[0]) ** (i / 60) for i in range(61)]
            axes.plot(
                steps, [found.law(n) for n in steps], "--", color=colors["second"], linewidth=1.2, label="power law"
            )
            ends = [found.loss - end for end in found.interval]
            axes.plot([ticks[-1]] * 2, ends, color=colors["second"], linewidth=2.4, solid_capstyle="round")
            axes.plot([ticks[-1]], [found.loss - found.gain], "o", markersize=5, color=colors["second"])
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("training rows")
        axes.legend(fontsize=9.5)

    values = "; ".join(f"{row['examples']} rows {row['mean']:.4g}" for row in curve.rows())
    name = NAME if number == 1 else f"{NAME}_{number}"
    of = f" of {curve.label}" if curve.label else ""
    return Figure(name, f"{curve.metric} over training rows{of}", f"{curve.metric}: {values}. {curve.sentence}", draw)
