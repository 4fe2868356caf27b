"""Prepare stored predictions and samples for the report; each row is on the page once."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmft.metrics.format import format_number
from llmft.report.word_diff import Marked, compare

SHOWN_CHARACTERS = 4000
SAMPLE_STEPS = 6
Row = Mapping[str, Any]


def page_rows(predictions: Sequence[Row], samples: Sequence[Row], first: int, extremes: int) -> dict[str, Any]:
    """The rows of the page.

    Args:
        predictions: The lines of ``predictions.jsonl``.
        samples: The lines of ``samples.jsonl``.
        first: Number of examples at the top.
        extremes: Number of rows with the highest and lowest chrF.

    Returns:
        ``examples``, the first rows; ``extremes``, the best and worst rows that are not among them; ``samples``, the sample
        questions that are in neither. A row that was also a sample has its answers during the training.
    """
    ranks = extreme_rows(predictions, extremes)
    trained = samples_by_row(samples)
    shown = list(range(min(first, len(predictions))))
    rest = [number for number in ranks if number >= first]
    cards: dict[int, dict[str, Any]] = {}
    for number in (*shown, *rest):
        row = predictions[number]
        cards[number] = example(row) | {"rank": ranks.get(number), "samples": trained.pop(_key(row), None)}
    return {
        "examples": [cards[number] for number in shown],
        "extremes": [cards[number] for number in rest],
        "ranked_above": sum(number < first for number in ranks),
        "samples": list(trained.values()),
    }


def example(row: Row) -> dict[str, Any]:
    """A prediction for the template; words of the answers that differ from the reference are marked."""
    reference, answer, base = _cut(row.get("reference")), _cut(row.get("answer")), row.get("base_answer")
    missing, extra = compare(reference, answer)
    return {
        "place": str(row.get("place", "")),
        "question": _cut(row.get("question") or row.get("prompt")),
        "reference": missing.pieces,
        "tuned": _side(missing, extra, row, ""),
        "base": None if base is None else _side(*compare(reference, _cut(base)), row, "base_"),
        "in_train": row.get("in_train") is True,
    }


def _side(missing: Marked, extra: Marked, row: Row, prefix: str) -> dict[str, Any]:
    counts = [f"{side.words} {words}" for side, words in ((missing, "missing"), (extra, "extra")) if side.words]
    return {
        "pieces": extra.pieces,
        "scores": _row_scores(row.get(f"{prefix}scores")),
        "words": f"{', '.join(counts)} word{'s' if missing.words + extra.words != 1 else ''}" if counts else "same words",
        "cut": row.get(f"{prefix}ended") is False,
    }  # fmt: skip


def extreme_rows(rows: Sequence[Row], number_of: int) -> dict[int, str]:
    """Number and rank of the best, then the worst predictions by chrF, which is defined for any script and length."""
    scored = [n for n, row in enumerate(rows) if isinstance((row.get("scores") or {}).get("chrf"), int | float)]
    ordered = sorted(scored, key=lambda n: rows[n]["scores"]["chrf"])
    if len(ordered) < 2 * number_of or not number_of:
        return {}
    best, worst = ordered[: -number_of - 1 : -1], ordered[:number_of]
    return dict.fromkeys(best, "best by chrF") | dict.fromkeys(worst, "worst by chrF")


def samples_by_row(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Any]]:
    """Each sample question with its answers over training; at most ``SAMPLE_STEPS`` evenly spaced validations."""
    by_row: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if not isinstance(row, Mapping):
            continue
        question, reference = _cut(row.get("question")), _cut(row.get("reference"))
        entry = by_row.setdefault(_key(row), {"question": question, "reference": reference, "answers": {}})
        entry["answers"][row.get("step")] = _cut(row.get("answer"))
    for entry in by_row.values():
        steps = list(entry["answers"].items())
        if len(steps) > SAMPLE_STEPS:
            chosen = {round(i * (len(steps) - 1) / (SAMPLE_STEPS - 1)) for i in range(SAMPLE_STEPS)}
            steps = [steps[i] for i in sorted(chosen)]
        entry["answers"] = steps
    return by_row


def _key(row: Row) -> tuple[str, str]:
    """Of a prediction and of a sample; the rows of a conversation share a place."""
    return str(row.get("place", "")), str(row.get("question", ""))


def _row_scores(scores: Any) -> str:
    shown = ("chrf", "f1", "rougeL", "judge")
    values = scores if isinstance(scores, dict) else {}
    return ", ".join(
        f"{name} {format_number(values[name])}" for name in shown if isinstance(values.get(name), int | float)
    )


def _cut(text: Any) -> str:
    text = str(text or "")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."
