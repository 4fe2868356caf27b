"""The summary of a run as HTML for a notebook: status, verdict, scores, first answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmft.metrics.verdict.verdict import Verdict
from llmft.report import content
from llmft.report.html import rendered
from llmft.report.next_steps import shown_path
from llmft.runs import read

ANSWERS = 3
LONGEST = 240  # characters of a text in the table


def summary(run: Path, verdict: Verdict) -> str:
    """A fragment without scripts, style sheets or colors of text: a notebook's own, light or dark, hold.

    Args:
        run: The run directory.
        verdict: Its verdict.
    """
    files = read.load(run)
    title, peft = content.run_names(files["config"])
    page = {
        "title": title,
        "peft": peft,
        "path": shown_path(run),
        "status": files["record"].get("status", "unknown"),
        "verdict": verdict,
        "scores": content.score_rows(files["evaluation"]),
        "answers": [_texts(row) for row in files["predictions"][:ANSWERS] if isinstance(row, dict)],
    }
    return rendered("notebook.html", page)


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a prediction for the table."""
    question = row.get("question") or row.get("prompt")
    texts = {"question": question} | {name: row.get(name) for name in ("reference", "base_answer", "answer")}
    return {name: _cut(str(text or "")) for name, text in texts.items()}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
