"""Print an evaluation to the terminal; format scores and intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from llmft.metrics.suites import all_scores
from llmft.utils.console import Console

COLORS = {"better": "green", "worse": "red"}
VERDICT_COLORS = {"green": "green", "amber": "yellow", "red": "red"}
SPLITS = {"val": "validation", "train": "training"}


def print_scores(found: Mapping[str, Any], console: Console) -> None:
    """Print the table of scores, then the reasons for missing scores, seeds, judge and verdict.

    Args:
        found: The content of ``evaluation.json``.
        console: Where to print.
    """
    scores = all_scores(found)
    base = any("base" in entry for entry in scores.values())
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)  # fits into 80 columns
    table.add_column("score")
    for name in ("base", "tuned", "difference", "95 % interval") if base else ("value", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, entry in scores.items():
        if not base:
            table.add_row(name, format_number(entry["tuned"]), format_interval(entry.get("tuned_interval")))
            continue
        difference = (
            format_number(entry.get("difference"), sign=True),
            format_interval(entry.get("difference_interval"), sign=True),
        )
        verdict = entry.get("verdict") or ""
        row = (format_number(entry.get("base")), format_number(entry["tuned"]), *difference)
        table.add_row(name, *row, Text(verdict, style=COLORS.get(verdict, "dim")))
    console.print(Text(title(found), style="bold"), soft_wrap=True)
    console.print(table)
    in_file = not console.is_terminal  # where nothing wraps lines; a terminal would cut words
    for line in reasons(scores):
        console.print(Text(line, style="dim"), soft_wrap=in_file)
    for line in (*_seeds(found), *judge_summary(found)):
        console.print(Text(line), soft_wrap=in_file)
    if found.get("verdict"):
        print_verdict(found["verdict"], console)


def print_verdict(verdict: Mapping[str, Any], console: Console) -> None:
    """Print a verdict, as in ``run.json``: the headline in its color, then reservations and details."""
    style = VERDICT_COLORS.get(str(verdict.get("color")), "")
    headline, *rest = verdict_lines(verdict)
    in_file = not console.is_terminal
    console.print(Text(headline, style=f"bold {style}".strip()), soft_wrap=in_file)
    for line in rest:
        console.print(Text(line), soft_wrap=in_file)


def verdict_lines(verdict: Mapping[str, Any]) -> list[str]:
    """The headline, the reservations and the details of a verdict, as in ``run.json``."""
    reservations = [f"Reservations: {'; '.join(verdict['reasons'])}."] if verdict.get("reasons") else []
    return [str(verdict.get("headline")), *reservations, *(verdict.get("details") or ())]


def title(found: Mapping[str, Any]) -> str:
    """Describe the scored rows: number, split and source, and the dtype that the models computed in."""
    given = found["split"] == "given"  # rows of another file, which is the source
    rows = f"{found['rows']} of {found['of']} {'' if given else split_name(found['split']) + ' '}rows"
    return f"{rows} of {found['source']}{computed_in(found)}"


def computed_in(found: Mapping[str, Any]) -> str:
    """The dtype of an evaluation as a part of a sentence; "" for stored answers and earlier versions."""
    return f", computed in {found['dtype']}" if found.get("dtype") else ""


def rows_of(found: Mapping[str, Any]) -> str:
    """The scored rows in short: ``32 of 400 validation rows``."""
    rows, total = found.get("rows") or 0, found.get("of") or 0
    number = f"{rows:,}" if rows == total else f"{rows:,} of {total:,}"
    if found.get("split") == "given":
        return f"{number} row{'s' * (total != 1)} of data.path"
    return f"{number} {split_name(str(found.get('split')))} row{'s' * (total != 1)}"


def split_name(split: str) -> str:
    """A split in words: validation is never called test."""
    return SPLITS.get(split, split)


def reasons(scores: Mapping[str, Any]) -> list[str]:
    """Why scores or intervals are missing, grouped by reason."""
    found: dict[str, list[str]] = {}
    for name, entry in scores.items():
        if entry.get("reason"):
            found.setdefault(entry["reason"], []).append(name)
    if len(found) == 1 < len(scores) == sum(map(len, found.values())):
        return [f"all scores: {reason}" for reason in found]
    return [f"{', '.join(names)}: {reason}" for reason, names in found.items()]


def format_number(value: float | None, *, sign: bool = False) -> str:
    """A number with about four significant digits; a dash for None."""
    if value is None or value == 0:
        return "-" if value is None else "0"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:{'+' if sign else ''}.{digits}f}"


def format_interval(ends: Sequence[float] | None, *, sign: bool = False) -> str:
    """An interval as ``low to high``; a dash for None."""
    return f"{format_number(ends[0], sign=sign)} to {format_number(ends[1], sign=sign)}" if ends else "-"


def _seeds(found: Mapping[str, Any]) -> list[str]:
    if not found.get("seeds"):
        return []
    scores = [
        f"{name} {format_number(e['mean'])} ± {format_number(e['sd'])}"
        for name, e in found["seeds"]["scores"].items()
        if e["mean"] is not None
    ]
    seeds = ", ".join(map(str, found["seeds"]["seeds"]))
    return [f"over seeds {seeds} (mean ± standard deviation): {'; '.join(scores)}"]


def judge_summary(found: Mapping[str, Any]) -> list[str]:
    """Number of valid judge replies, pairwise wins, and the reasons for invalid replies."""
    judge = found.get("judge")
    if not judge:
        return []
    if "error" in judge:
        return [judge["error"]]
    valid = f"{judge['valid']} of {judge['asked']} replies valid, {judge['reused']} reused from an earlier run"
    lines = [f"judge {', '.join(judge['models'])}: {valid}"]
    if judge["mode"] == "pairwise":
        wins = f"tuned wins {judge['tuned_wins']}, base wins {judge['base_wins']}"
        lines.append(f"pairwise: {wins}, {judge['ties']} ties or undecided")
    return lines + [f"judge: {count} x {reason}" for reason, count in judge["reasons"].items()]
