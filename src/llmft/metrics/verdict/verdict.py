"""The verdict of a run: a headline in one of three colors, from ``evaluation.json`` and ``run.json``."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from markupsafe import Markup

from llmft.metrics.format import format_interval, format_number, rows_of, verdict_lines
from llmft.metrics.verdict.details import details_of
from llmft.metrics.verdict.reservations import common_reservations, reservations
from llmft.metrics.verdict.scores import leading_score, retention_of
from llmft.utils.text import printable

Color = Literal["green", "amber", "red"]
COLORS: tuple[Color, ...] = ("green", "amber", "red")
BARS: dict[Color, str] = {"green": "#2da44e", "amber": "#bf8700", "red": "#cf222e"}  # seen on white and on black
LISTS = ("details", "reasons")


@dataclass(frozen=True)
class Verdict:
    """What a run has achieved, in words that are the same in the terminal, the report, the card, and ``run.json``.

    Attributes:
        color: ``green``: significantly better than the base model, without reservation. ``red``: significantly worse, or it
            forgot (retention) and gained nothing. ``amber``: everything else.
        headline: At most 25 words: rows, split, score, difference with interval.
        details: At most two lines: power, correction, clean rows; retention and the check of the training's arithmetic.
        reasons: Why it is not green; empty if it is.
    """

    color: Color
    headline: str
    details: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As in ``run.json``."""
        return asdict(self) | {"details": list(self.details), "reasons": list(self.reasons)}

    def _repr_html_(self) -> str:
        """For a notebook: a colored bar, with the text in the notebook's own color; a ``Markup``, already escaped."""
        headline, *rest = map(printable, self.lines())
        lines = Markup("").join(Markup("<div>{}</div>").format(line) for line in rest)
        return Markup('<div style="border-left: 6px solid {}; padding: 4px 12px"><strong>{}</strong>{}</div>').format(
            BARS[self.color], headline, lines
        )

    def lines(self) -> list[str]:
        """The headline, the reservations and the details."""
        return verdict_lines(self.as_dict())


def verdict_of(evaluation: Mapping[str, Any] | None, record: Mapping[str, Any]) -> Verdict:
    """The verdict on an evaluation.

    One score leads, and it is chosen before the scores are known: see ``primary.primary_score``. It needs no correction; the
    other scores are corrected for their number, and one that is significantly worse turns the verdict amber.

    Args:
        evaluation: The content of ``evaluation.json``; None if nothing was evaluated.
        record: The content of ``run.json``; empty if unknown.
    """
    if not evaluation or not evaluation.get("scores") or not evaluation.get("rows"):
        reasons = ("not evaluated", *common_reservations(evaluation or {}, record))
        return Verdict("amber", _without_evaluation(record), details_of(evaluation or {}, record), reasons)
    name = leading_score(evaluation)
    entry = evaluation["scores"].get(name) or {}
    reasons = tuple(reservations(evaluation, record, entry))
    forgot = bool(retention_of(evaluation, record).get("flagged"))
    if entry.get("verdict") == "worse" or (forgot and entry.get("verdict") != "better"):
        color: Color = "red"
    else:
        color = "amber" if reasons else "green"
    return Verdict(color, _headline(evaluation, name, entry), details_of(evaluation, record), reasons)


def add_verdict(evaluation: dict[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Set ``verdict`` and ``headline`` of an evaluation; returns the verdict as in ``run.json``."""
    found = verdict_of(evaluation, record)
    evaluation |= {"headline": found.headline, "verdict": found.as_dict()}
    return evaluation["verdict"]


def stored_verdict(evaluation: Mapping[str, Any] | None, record: Mapping[str, Any]) -> Verdict:
    """The verdict in ``run.json``; of a run of an earlier version, which has none, as ``verdict_of``."""
    found = record.get("verdict")
    if not isinstance(found, Mapping) or found.get("color") not in COLORS:
        return verdict_of(evaluation, record)
    details, reasons = (tuple(map(str, of)) if isinstance(of := found.get(name), list) else () for name in LISTS)
    return Verdict(found["color"], str(found.get("headline") or ""), details, reasons)


def _headline(evaluation: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> str:
    rows, score = rows_of(evaluation), "_".join(name.split())
    tuned, base = (format_number(entry.get(which)) for which in ("tuned", "base"))
    if entry.get("tuned") is None or ("base" in entry and entry["base"] is None):
        return f"No verdict on {rows}: {score} is undefined ({tuned} against {base} of its base)."
    if "base" not in entry:
        interval = format_interval(entry.get("tuned_interval"))
        return f"Not compared with its base: {score} {tuned} on {rows} (95 % interval {interval})."
    if entry.get("verdict") is None:
        return f"Too few rows to tell: {score} {tuned} against {base} of its base on {rows}, without interval."
    compared = {
        "better": "Better than its base",
        "worse": "Worse than its base",
        "no difference seen": "No significant difference from its base",
    }.get(entry["verdict"], "Different from its base")
    interval = format_interval(entry.get("difference_interval"), sign=True)
    difference = format_number(entry.get("difference"), sign=True)
    return f"{compared} on {rows}: {score} {tuned} against {base}, difference {difference} (95 % interval {interval})."


def _without_evaluation(record: Mapping[str, Any]) -> str:
    metrics = record.get("metrics") or {}
    before, after = ((metrics.get(name) or {}).get("val/loss") for name in ("before", "after"))
    if after is None:
        return "Not evaluated: no rows were scored."
    known = "" if before is None else f", {format_number(before)} before training"
    return f"Not evaluated: no rows were scored (validation loss {format_number(after)}{known})."
