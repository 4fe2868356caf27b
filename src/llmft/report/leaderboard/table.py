"""The rows of a leaderboard: all columns as text, and those that its page shows."""

import statistics
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from llmft.config.setting_names import short_names, short_value
from llmft.metrics.format import format_interval, format_number
from llmft.report.leaderboard.ranking import Criterion, Group, shared_name
from llmft.report.leaderboard.runs import BoardRun
from llmft.report.leaderboard.shared_rows import SharedRows
from llmft.utils.text import duration


def columns(
    groups: Sequence[Group], keys: Sequence[str], objective: str, criterion: Criterion, shared: SharedRows | None
) -> list[list[str]]:
    """Header and one row per group, for ``leaderboard.csv`` and ``.md``, without columns that are empty in all rows."""
    rows = [
        {"rank": str(rank), "run": ", ".join(run.name for run in group.runs)}
        | {key.removesuffix(".name"): _full(group.runs[0].settings.get(key)) for key in keys}
        | {"seeds": seeds(group), criterion.name: spread(group.values)}
        | _objective(group, objective, criterion)
        | {"against the best": against(group, first=rank == 1)}
        | {shared_name(name): text for name, text in test_scores(group, shared).items()}
        | costs(group)
        | {"verdict": "; ".join(dict.fromkeys(run.verdict.headline for run in group.runs))}
        for rank, group in enumerate(groups, start=1)
    ]
    names = [c for c in dict.fromkeys(c for row in rows for c in row) if any(row.get(c) for row in rows)]
    return [names, *([row.get(column, "") for column in names] for row in rows)]


def page_rows(
    groups: Sequence[Group], keys: Sequence[str], criterion: Criterion, shared: SharedRows | None
) -> list[dict[str, Any]]:
    """What the page shows of each group."""
    names = short_names(keys)
    return [
        {
            "rank": rank,
            "settings": [(names[key], short_value(group.runs[0].settings.get(key))) for key in keys],
            "runs": [link(run) for run in group.runs],
            "seeds": seeds(group),
            "score": spread(group.values),
            "interval": format_interval(group.interval) if group.interval else "",
            "against": group.against or ("the best" if rank == 1 else "unknown", ""),
            "before": spread(_before(group, criterion), deviation=False),
            "tests": test_scores(group, shared),
            "costs": costs(group),
        }
        for rank, group in enumerate(groups, start=1)
    ]


def link(run: BoardRun) -> dict[str, str]:
    """Name, address of the report relative to the leaderboard ("" without one), color of the verdict and its sentence."""
    return {
        "name": run.name,
        "href": f"./{quote(run.name)}/report.html" if run.has_report else "",
        "color": run.verdict.color,
        "headline": run.verdict.headline,
    }


def seeds(group: Group) -> str:
    """The seeds of a group."""
    return ", ".join(str(run.seed) for run in group.runs)


def against(group: Group, *, first: bool) -> str:
    """How a group compares with the best."""
    if first:
        return "the best"
    return f"{group.against[0]}: {group.against[1]}" if group.against else "unknown"


def test_scores(group: Group, shared: SharedRows | None) -> dict[str, str]:
    """Scores over the shared rows; the spread is over seeds."""
    if not shared or group.number is None:
        return {}
    entries = shared.scores[group.number]
    return {
        metric.name: spread(shared.of_runs(group.number, metric.name), entries[metric.name]["tuned"])
        for metric in shared.metrics
    }


def costs(group: Group) -> dict[str, str]:
    """Trainable parameters, speed, memory and time, means over the seeds."""
    known = [run.seconds for run in group.runs if run.seconds is not None]
    return {
        "trained %": spread([run.trainable for run in group.runs], deviation=False),
        "tokens/s": spread([run.speed for run in group.runs], deviation=False),
        "peak MiB": spread([run.memory for run in group.runs], deviation=False),
        "time": duration(statistics.mean(known)) if known else "",
    }


def spread(values: Sequence[float | None], mean: float | None = None, *, deviation: bool = True) -> str:
    """Mean and standard deviation of known values (ddof = 1)."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    text = format_number(statistics.mean(known) if mean is None else mean)
    return f"{text} ± {format_number(statistics.stdev(known))}" if deviation and len(known) > 1 else text


def _objective(group: Group, objective: str, criterion: Criterion) -> dict[str, str]:
    """The objective if groups are ranked by something else, and the value before training."""
    before = {
        f"{criterion.name if criterion.per_byte else objective} before": spread(
            _before(group, criterion), deviation=False
        )
    }
    if criterion.name == objective:
        return before
    return {objective: spread([run.objective for run in group.runs])} | before


def _before(group: Group, criterion: Criterion) -> list[float | None]:
    return [criterion.of_objective(run, run.before) for run in group.runs]


def _full(value: Any) -> str:
    return short_value(value) if value is None or isinstance(value, bool) else str(value)
