"""Prepare stored predictions and samples for the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmft.metrics.format import format_number
from llmft.report.word_diff import diff_words

SHOWN_CHARACTERS = 4000
SAMPLE_STEPS = 6


def example(row: Mapping[str, Any]) -> dict[str, Any]:
    """A prediction for the template, with the word differences between base and tuned answer marked."""
    tuned, base = _cut(row.get("answer")), row.get("base_answer")
    left, right = diff_words(_cut(base), tuned) if base is not None else ([], [(tuned, False)])
    return {
        "id": str(row.get("id", "")),
        "place": str(row.get("place", "")),
        "question": _cut(row.get("question") or row.get("prompt")),
        "reference": _cut(row.get("reference")),
        "base": left if base is not None else None,
        "tuned": right,
        "scores": _row_scores(row.get("scores")),
        "base_scores": _row_scores(row.get("base_scores")),
        "cut": {"tuned": row.get("ended") is False, "base": row.get("base_ended") is False},
    }


def extremes(rows: Sequence[Mapping[str, Any]], number_of: int) -> dict[str, list[dict[str, Any]]]:
    """The best and worst predictions of the tuned model by chrF, which is defined for any script and length."""
    scored = [row for row in rows if isinstance((row.get("scores") or {}).get("chrf"), int | float)]
    ordered = sorted(scored, key=lambda row: row["scores"]["chrf"])
    if len(ordered) < 2 * number_of or not number_of:
        return {}
    return {
        "Best": [example(row) for row in ordered[: -number_of - 1 : -1]],
        "Worst": [example(row) for row in ordered[:number_of]],
    }


def samples(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each sample question with its answers over training; at most ``SAMPLE_STEPS`` evenly spaced validations."""
    by_question: dict[str, dict[str, Any]] = {}
    for row in rows:
        entry = by_question.setdefault(
            str(row.get("place")),
            {
                "question": _cut(row.get("question")),
                "reference": _cut(row.get("reference")),
                "answers": {},
            },
        )
        entry["answers"][row.get("step")] = _cut(row.get("answer"))
    for entry in by_question.values():
        steps = list(entry["answers"].items())
        if len(steps) > SAMPLE_STEPS:
            chosen = {round(i * (len(steps) - 1) / (SAMPLE_STEPS - 1)) for i in range(SAMPLE_STEPS)}
            steps = [steps[i] for i in sorted(chosen)]
        entry["answers"] = steps
    return list(by_question.values())


def _row_scores(scores: Any) -> str:
    shown = ("chrf", "f1", "rougeL", "judge")
    values = scores if isinstance(scores, dict) else {}
    return ", ".join(
        f"{name} {format_number(values[name])}" for name in shown if isinstance(values.get(name), int | float)
    )


def _cut(text: Any) -> str:
    text = str(text or "")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."
