"""Runs below a folder -> ``leaderboard.md``, ``.csv``, ``.html`` and ``.png``: which to keep, and which differences are luck."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from llmft.config.metric_names import BETTER, mode_of
from llmft.metrics.format import number
from llmft.report import content, curves, significance
from llmft.report.figures import Figure, scatter
from llmft.report.html import save
from llmft.runs import read
from llmft.utils import csv as csv_files
from llmft.utils import files
from llmft.utils.errors import UserError
from llmft.utils.text import duration, first_line, in_markdown, markdown

SCORES = ("loss", "f1", "bleu", "chrf", "rougeL", "keyword_f1", "judge")
# Settings that say where, by which chance and how it is shown, not what was done.
NOT_A_SETTING = ("seed", "data.seed", "generation.seed", "output_dir", "show_traceback")
NOT_SETTINGS = ("logger.", "report.", "callbacks.progress.")


def write(folder: Path) -> str:
    """Compare all runs below a folder; runs that differ by their seed alone are one line.

    Returns:
        The table in Markdown.

    Raises:
        UserError: There is no run below it.
    """
    runs = [_run(file) for file in sorted(folder.rglob("run.json"), key=lambda f: [_natural(p) for p in f.parts])]
    if not runs:
        raise UserError(f"runs={folder}: no run directory below it (one would hold run.json)")
    finished = [run for run in runs if run["status"] == "finished" and run["objective"] is not None]
    objective = max((r["monitor"] for r in finished), key=[r["monitor"] for r in finished].count, default="val/loss")
    differing = _differing(finished)
    groups = _ranked([r for r in finished if r["monitor"] == objective], differing, objective)
    others = [run for run in runs if run not in [r for g in groups for r in g["runs"]]]
    rows = [_row(rank, group, groups[0], differing, objective) for rank, group in enumerate(groups, start=1)]
    columns = [c for c in dict.fromkeys(c for row in rows for c in row) if any(row.get(c) for row in rows)]
    table = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    left = [f"{run['name']}: {run['status']}{', ' + run['reason'] if run['reason'] else ''}" for run in others]
    text = (markdown(table) if rows else "no finished run has an objective\n") + "".join(
        f"\nnot ranked: {in_markdown(line)}\n" for line in left
    )
    files.write(folder / "leaderboard.md", text)
    csv_files.write(folder / "leaderboard.csv", table)
    shown = {
        "folder": str(folder),
        "objective": objective,
        "columns": columns,
        "rows": table[1:],
        "left": left,
        "best": _named(groups[0], differing) if groups else "",
    }
    picture = _picture(groups, differing, objective)
    if picture:
        picture.png(folder / "leaderboard.png")
    save(folder / "leaderboard.html", "leaderboard.html", {**shown, "figure": picture, "runs": len(runs)})
    return text


def _run(file: Path) -> dict[str, Any]:
    loaded = read.load(file.parent)
    record, config = loaded["record"], loaded["config"]
    metrics = record.get("metrics") or {}
    speeds = curves.read(file.parent / "metrics.csv").get("train/tokens_per_second")
    parameters = record.get("parameters") or {}
    return {
        "name": str(file.parent.name),
        "status": str(record.get("status", "unknown")),
        "reason": first_line(record.get("reason") or ""),
        "settings": _flat(OmegaConf.to_container(config)),
        "monitor": content.record_objective(config),
        "objective": record.get("objective"),
        "seed": record.get("seed"),
        "test": metrics.get("test") or {},
        "trainable": 100 * parameters["trainable"] / parameters["total"] if parameters.get("total") else None,
        "speed": statistics.median(speeds.values) if speeds else None,
        "memory": max((record.get("peak_memory_mib") or {}).values(), default=None),
        "seconds": record.get("seconds"),
        "predictions": [row for row in loaded["predictions"] if isinstance(row, dict)],
    }


def _flat(node: Any, path: str = "") -> dict[str, str]:
    if not isinstance(node, dict):
        return {path: str(node)}
    return {k: v for key, child in node.items() for k, v in _flat(child, f"{path}.{key}" if path else str(key)).items()}


def _differing(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings that are not the same in all runs; of a group that differs as a whole, its name alone."""
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
    sign = 1 if mode_of(objective) == "min" else -1
    found = [{"runs": of, "values": [run["objective"] for run in of]} for of in groups.values()]
    return sorted(found, key=lambda group: sign * statistics.mean(group["values"]))


def _row(
    rank: int, group: Mapping[str, Any], best: Mapping[str, Any], differing: Sequence[str], objective: str
) -> dict[str, str]:
    runs = group["runs"]
    row = {"rank": str(rank), "run": ", ".join(run["name"] for run in runs)}
    row |= {key.removesuffix(".name"): runs[0]["settings"].get(key, "") for key in differing}
    row |= {"seeds": ", ".join(str(run["seed"]) for run in runs), objective: _mean(group["values"])}
    row["against the best"] = "the best" if group is best else _against(group, best, objective)
    for name in SCORES:
        row[f"test {name}"] = _mean([run["test"].get(name) for run in runs])
    row |= {
        "trained %": _mean([run["trainable"] for run in runs], spread=False),
        "tokens/s": _mean([run["speed"] for run in runs], spread=False),
    }
    row |= {"peak MiB": _mean([run["memory"] for run in runs], spread=False)}
    row["time"] = duration(statistics.mean(run["seconds"] or 0 for run in runs))
    return row


def _against(group: Mapping[str, Any], best: Mapping[str, Any], objective: str) -> str:
    better = BETTER.get(objective.rpartition("/")[2]) or "lower"
    found = significance.over_seeds(group["values"], best["values"], better)
    found = found or significance.over_rows(group["runs"][0]["predictions"], best["runs"][0]["predictions"])
    return f"{found[0]}: {found[1]}" if found else "not known: one seed each, and no shared test rows"


def _named(group: Mapping[str, Any], differing: Sequence[str]) -> str:
    """What sets a group apart, in words; its runs."""
    settings = group["runs"][0]["settings"]
    said = ", ".join(f"{key.removesuffix('.name')}={settings.get(key, '')}" for key in differing)
    runs = ", ".join(run["name"] for run in group["runs"])
    return f"{said} (run {runs})" if said else f"run {runs}"


def _mean(values: Sequence[float | None], *, spread: bool = True) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    text = number(statistics.mean(known))
    return f"{text} ± {number(statistics.stdev(known))}" if spread and len(known) > 1 else text


def _picture(groups: Sequence[Mapping[str, Any]], differing: Sequence[str], objective: str) -> Figure | None:
    points = []
    for group in groups:
        seconds = statistics.mean(run["seconds"] or 0 for run in group["runs"])
        spread = statistics.stdev(group["values"]) if len(group["values"]) > 1 else 0.0
        points.append((_named(group, differing), seconds, statistics.mean(group["values"]), spread))
    return scatter(points, "seconds", objective) if len(points) > 1 else None


def _natural(part: str) -> tuple[int, int, str]:
    return (0, int(part), "") if part.isdigit() else (1, 0, part)
