"""Rank the runs below a folder: ``leaderboard.md``, ``.csv``, ``.html`` and ``.png``, with significance of differences."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.metric_names import BETTER, monitor_mode
from llmft.config.tree import walk
from llmft.metrics.format import format_number
from llmft.metrics.verdict.verdict import stored_verdict
from llmft.report import content, curves, significance
from llmft.report.figures import Figure, scatter
from llmft.report.html import render
from llmft.runs import read
from llmft.utils import csv as csv_files
from llmft.utils import files
from llmft.utils.errors import UserError
from llmft.utils.text import duration, first_line, in_markdown, markdown

SCORES = ("loss", "f1", "bleu", "chrf", "rougeL", "keyword_f1", "judge")
# Settings that do not distinguish runs: seeds, output paths and display.
NOT_A_SETTING = ("seed", "data.seed", "generation.seed", "output_dir", "show_traceback")
NOT_SETTINGS = ("logger.", "report.", "callbacks.progress.")


def write_leaderboard(folder: Path) -> str:
    """Rank all runs below a folder; runs that differ only in their seed form one row.

    Returns:
        The table in Markdown.

    Raises:
        UserError: The folder contains no run.
    """
    runs = [_run(file) for file in sorted(folder.rglob("run.json"), key=lambda f: [_natural_key(p) for p in f.parts])]
    if not runs:
        raise UserError(f"runs={folder}: contains no run directory (a folder with run.json)")
    finished = [run for run in runs if run["status"] == "finished" and run["objective"] is not None]
    objective = max((r["monitor"] for r in finished), key=[r["monitor"] for r in finished].count, default="val/loss")
    differing = _differing(finished)
    groups = _ranked([r for r in finished if r["monitor"] == objective], differing, objective)
    table = _table(groups, differing, objective)
    ranked = [run for group in groups for run in group["runs"]]
    not_ranked = [_status(run) for run in runs if run not in ranked]
    text = (markdown(table) if groups else "no finished run has an objective\n") + "".join(
        f"\nnot ranked: {in_markdown(line)}\n" for line in not_ranked
    )
    files.atomic_write(folder / "leaderboard.md", text)
    csv_files.write(folder / "leaderboard.csv", table)
    figure = _figure(groups, differing, objective)
    if figure:
        figure.png(folder / "leaderboard.png")
    page = {"folder": str(folder), "objective": objective, "columns": table[0], "rows": table[1:], "left": not_ranked}
    best = _group_label(groups[0], differing) if groups else ""
    render(folder / "leaderboard.html", "leaderboard.html", page | {"best": best, "figure": figure, "runs": len(runs)})
    return text


def _table(groups: Sequence[Mapping[str, Any]], differing: Sequence[str], objective: str) -> list[list[str]]:
    """Header and one row per group, without columns that are empty in all rows."""
    rows = [_row(rank, group, groups[0], differing, objective) for rank, group in enumerate(groups, start=1)]
    columns = [c for c in dict.fromkeys(c for row in rows for c in row) if any(row.get(c) for row in rows)]
    return [columns, *([row.get(column, "") for column in columns] for row in rows)]


def _status(run: Mapping[str, Any]) -> str:
    unknown = "without an objective" if run["status"] == "finished" and run["objective"] is None else ""
    return ", ".join(part for part in (f"{run['name']}: {run['status']}", run["reason"], unknown) if part)


def _run(file: Path) -> dict[str, Any]:
    loaded = read.load(file.parent)
    record, config = loaded["record"], loaded["config"]
    metrics = record.get("metrics") or {}
    speeds = curves.read_metrics(file.parent / "metrics.csv").get("train/tokens_per_second")
    parameters = record.get("parameters") or {}
    monitor = content.record_objective(config)
    return {
        "name": str(file.parent.name),
        "status": str(record.get("status", "unknown")),
        "reason": first_line(record.get("reason") or ""),
        "settings": _flat_settings(config),
        "monitor": monitor,
        "before": (metrics.get("before") or {}).get(monitor),
        "objective": record.get("objective"),
        "seed": record.get("seed"),
        "test": metrics.get("test") or {},
        "trainable": 100 * parameters["trainable"] / parameters["total"] if parameters.get("total") else None,
        "speed": statistics.median(speeds.values) if speeds else None,
        "memory": max((record.get("peak_memory_mib") or {}).values(), default=None),
        "seconds": record.get("seconds"),
        "verdict": stored_verdict(loaded["evaluation"], record),
        "predictions": [row for row in loaded["predictions"] if isinstance(row, dict)],
    }


def _flat_settings(config: DictConfig) -> dict[str, str]:
    nodes = walk(OmegaConf.to_container(config))
    return {path: str(value) for path, value in nodes if "[" not in path and not isinstance(value, dict)}


def _differing(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings that differ between runs; for a group with another option, only its name."""
    keys = dict.fromkeys(key for run in runs for key in run["settings"])
    found = [key for key in keys if not _is_incidental(key) and len({run["settings"].get(key) for run in runs}) > 1]
    named = {key.partition(".")[0] for key in found if key.endswith(".name") and key.count(".") == 1}
    follows = ("optim.lr",) if "peft" in named and _one_to_one(runs, "optim.lr", "peft.name") else ()
    return [
        key for key in found if key not in follows and (key.endswith(".name") or key.partition(".")[0] not in named)
    ]


def _is_incidental(key: str) -> bool:
    return key in NOT_A_SETTING or key.startswith(NOT_SETTINGS)


def _one_to_one(runs: Sequence[Mapping[str, Any]], key: str, name: str) -> bool:
    pairs = {(run["settings"].get(name), run["settings"].get(key)) for run in runs}
    return len(pairs) == len({pair[0] for pair in pairs})


def _ranked(runs: Sequence[Mapping[str, Any]], differing: Sequence[str], objective: str) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(tuple(run["settings"].get(key) for key in differing), []).append(run)
    sign = 1 if monitor_mode(objective) == "min" else -1
    found = [{"runs": of, "values": [run["objective"] for run in of]} for of in groups.values()]
    return sorted(found, key=lambda group: sign * statistics.mean(group["values"]))


def _row(
    rank: int, group: Mapping[str, Any], best: Mapping[str, Any], differing: Sequence[str], objective: str
) -> dict[str, str]:
    runs = group["runs"]
    row = {"rank": str(rank), "run": ", ".join(run["name"] for run in runs)}
    row |= {key.removesuffix(".name"): runs[0]["settings"].get(key, "") for key in differing}
    row |= {"seeds": ", ".join(str(run["seed"]) for run in runs), objective: _mean(group["values"])}
    row[f"{objective} before"] = _mean([run["before"] for run in runs], spread=False)
    row["against the best"] = "the best" if group is best else _compare_with_best(group, best, objective)
    row["verdict"] = "; ".join(dict.fromkeys(run["verdict"].headline for run in runs))
    for name in SCORES:
        row[f"test {name}"] = _mean([run["test"].get(name) for run in runs])
    row |= {
        "trained %": _mean([run["trainable"] for run in runs], spread=False),
        "tokens/s": _mean([run["speed"] for run in runs], spread=False),
    }
    row |= {"peak MiB": _mean([run["memory"] for run in runs], spread=False)}
    row["time"] = duration(statistics.mean(run["seconds"] or 0 for run in runs))
    return row


def _compare_with_best(group: Mapping[str, Any], best: Mapping[str, Any], objective: str) -> str:
    better = BETTER.get(objective.rpartition("/")[2]) or "lower"
    found = significance.compare_seeds(group["values"], best["values"], better)
    found = found or significance.compare_rows(group["runs"][0]["predictions"], best["runs"][0]["predictions"])
    return f"{found[0]}: {found[1]}" if found else "unknown: one seed each, and no shared test rows"


def _group_label(group: Mapping[str, Any], differing: Sequence[str]) -> str:
    """The settings in which a group differs, and its runs."""
    settings = group["runs"][0]["settings"]
    label = ", ".join(f"{key.removesuffix('.name')}={settings.get(key, '')}" for key in differing)
    runs = ", ".join(run["name"] for run in group["runs"])
    return f"{label} (run {runs})" if label else f"run {runs}"


def _mean(values: Sequence[float | None], *, spread: bool = True) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    text = format_number(statistics.mean(known))
    return f"{text} ± {format_number(statistics.stdev(known))}" if spread and len(known) > 1 else text


def _figure(groups: Sequence[Mapping[str, Any]], differing: Sequence[str], objective: str) -> Figure | None:
    points = []
    for group in groups:
        seconds = statistics.mean(run["seconds"] or 0 for run in group["runs"])
        spread = statistics.stdev(group["values"]) if len(group["values"]) > 1 else 0.0
        points.append((_group_label(group, differing), seconds, statistics.mean(group["values"]), spread))
    return scatter(points, "seconds", objective) if len(points) > 1 else None


def _natural_key(part: str) -> tuple[int, int, str]:
    return (0, int(part), "") if part.isdigit() else (1, 0, part)
