"""Scores -> a table in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from llmft.utils.console import Console

COLORS = {"better": "green", "worse": "red"}


def show(found: Mapping[str, Any], console: Console) -> None:
    """Base, tuned, their difference and what it says; why a score is missing below."""
    scores = found["scores"]
    base = any("base" in entry for entry in scores.values())
    table = Table(box=SIMPLE_HEAD)
    table.add_column("score")
    for name in ("base", "tuned", "difference", "95 % interval") if base else ("score", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, entry in scores.items():
        if not base:
            table.add_row(name, number(entry["tuned"]), interval(entry["tuned_interval"]))
            continue
        difference = number(entry.get("difference"), sign=True), interval(entry.get("difference_interval"), sign=True)
        verdict = entry.get("verdict") or ""
        row = (number(entry.get("base")), number(entry["tuned"]), *difference)
        table.add_row(name, *row, Text(verdict, style=COLORS.get(verdict, "dim")))
    console.print(Text(title(found), style="bold"), soft_wrap=True)
    console.print(table)
    for line in reasons(scores):
        console.print(Text(line, style="dim"), soft_wrap=True)
    for line in (*_seeds(found), *judge_lines(found)):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(found["headline"]), soft_wrap=True)


def title(found: Mapping[str, Any]) -> str:
    """What was scored."""
    of = f"{found['rows']} of {found['of']} {found['split']} rows"
    return f"{of} of {found['source']}"


def reasons(scores: Mapping[str, Any]) -> list[str]:
    """Why scores or intervals are missing, those with the same reason together."""
    found: dict[str, list[str]] = {}
    for name, entry in scores.items():
        if entry.get("reason"):
            found.setdefault(entry["reason"], []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in found.items()]


def number(value: float | None, *, sign: bool = False) -> str:
    """Four digits that matter; a dash for none."""
    if value is None or value == 0:
        return "-" if value is None else "0"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:{'+' if sign else ''}.{digits}f}"


def interval(ends: Sequence[float] | None, *, sign: bool = False) -> str:
    """``low to high``; a dash for none."""
    return f"{number(ends[0], sign=sign)} to {number(ends[1], sign=sign)}" if ends else "-"


def _seeds(found: Mapping[str, Any]) -> list[str]:
    if not found.get("seeds"):
        return []
    said = [
        f"{name} {number(e['mean'])} ± {number(e['sd'])}"
        for name, e in found["seeds"]["scores"].items()
        if e["mean"] is not None
    ]
    return [f"over seeds {', '.join(map(str, found['seeds']['seeds']))} (mean ± standard deviation): {'; '.join(said)}"]


def judge_lines(found: Mapping[str, Any]) -> list[str]:
    """How many of a judge's replies could be used, and why not the others."""
    said = found.get("judge")
    if not said:
        return []
    if "error" in said:
        return [said["error"]]
    lines = [
        f"judge {', '.join(said['models'])}: {said['valid']} of {said['asked']} replies valid, {said['reused']} from before"
    ]
    if said["mode"] == "pairwise":
        lines.append(
            f"pairs: tuned wins {said['tuned_wins']}, base wins {said['base_wins']}, {said['ties']} ties or undecided"
        )
    return lines + [f"judge: {count} x {reason}" for reason, count in said["reasons"].items()]
