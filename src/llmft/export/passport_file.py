"""Write a passport: ``passport.json`` beside the files, a table in the terminal, a section of the model card."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from llmft.config.schema import TrainConfig
from llmft.data.notice import notices
from llmft.export.base_model import portable_source
from llmft.export.passport import Passport
from llmft.runs.find import PASSPORT
from llmft.runs.record import read_record
from llmft.runtimes.exported import LANGUAGES
from llmft.utils.console import Console
from llmft.utils.json import write as write_json
from llmft.utils.text import in_markdown

COLORS = {"passed": "green", "failed": "red", "not checked": "yellow"}
WORDS = {True: "yes", False: "NO", None: "listed"}


def write(folder: Path, found: Passport, cfg: TrainConfig, run: Path) -> None:
    """Write ``passport.json``: the checks, and what ``answer`` and ``evaluate`` need to use the folder.

    Args:
        folder: The exported folder.
        found: The passport.
        cfg: The run's config.
        run: The run directory.
    """
    record = read_record(run, default={})
    trained = {"started": record.get("started"), "best_step": (record.get("metrics") or {}).get("best_step")}
    use: dict[str, Any] = {
        "family": cfg.model.family,
        "base": portable_source(cfg),
        "system": cfg.data.system,
        "notice": " ".join(notices(cfg.data)) or None,
        "reasoning": cfg.data.reasoning,
        "generation": cfg.generation.node(),
        **{name: value for name in LANGUAGES if (value := cfg.model.select(name))},
    }
    write_json(folder / PASSPORT, {"llmft": version("llmft"), **found.node(), "run": trained, **use})


def show(found: Passport, console: Console) -> None:
    """Print the table of a passport."""
    head = f"{_title(found)}: "
    console.print(Text(head, style="bold") + Text(found.status, style=COLORS[found.status]), soft_wrap=True)
    if found.reason:
        console.print(Text(found.reason), soft_wrap=True)
    if found.checks:
        table = Table(box=SIMPLE_HEAD)
        for column in ("check", "found", "wanted", "passed"):
            table.add_column(column)
        for check in found.checks:
            style = "red" if check.passed is False else ""
            cells = (check.name, check.found, check.wanted)  # no markup: they quote questions
            table.add_row(*map(Text, cells), Text(WORDS[check.passed], style=style))
        console.print(table)
    for line in found.later:
        console.print(Text(f"after a near tie: {line}"), soft_wrap=True)


def section(found: Passport) -> list[str]:
    """The section of the model card."""
    if not found.checks:
        return [f"{found.status.capitalize()}: {in_markdown(found.reason)}\n"]
    lines = [
        f"{found.runtime} opened these files and was compared with the trained model: **{found.status}**.\n",
        "| check | found | wanted | passed |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {check.name} | {in_markdown(check.found)} | {in_markdown(check.wanted)} | {WORDS[check.passed]} |"
        for check in found.checks
    ]
    lines += ["", *(f"- After a near tie: {in_markdown(line)}" for line in found.later)]
    return [*lines, ""] if found.later else lines


def fault(found: Passport) -> str:
    """Why an export is not kept, in one line."""
    wrong = [f"{check.name}: {check.found} (wanted: {check.wanted})" for check in found.checks if check.passed is False]
    if found.status == "not checked":
        return f"was not checked ({found.reason})"
    return "; ".join(wrong) or found.reason


def _title(found: Passport) -> str:
    kind = f"{found.form}, {found.quantize or found.dtype}"
    return f"{kind} in {found.runtime}" if found.runtime else kind
