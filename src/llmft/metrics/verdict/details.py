"""The lines below a headline: what qualifies it."""

from collections.abc import Iterator, Mapping
from typing import Any

from llmft.metrics.bootstrap import MIN_ROWS
from llmft.metrics.format import format_interval, format_number
from llmft.metrics.verdict.power import LIMIT
from llmft.metrics.verdict.scores import clean_entry, corrected, leading_score, retention_of

NAMED = 4  # scores that are listed by name; more are counted


def details_of(evaluation: Mapping[str, Any], record: Mapping[str, Any]) -> tuple[str, ...]:
    """At most two lines: on the scores (few-shot, clean rows, power, other scores); on retention and the arithmetic.

    Args:
        evaluation: The content of ``evaluation.json``; empty if nothing was evaluated.
        record: The content of ``run.json``; empty if unknown.
    """
    others = [retention_of(evaluation, record).get("sentence"), (record.get("prove") or {}).get("sentence")]
    of_scores = (_few_shot, _clean, _power, _other_scores) if evaluation.get("scores") else ()
    scored = (sentence for part in of_scores for sentence in part(evaluation))
    lines = [
        " ".join(scored),
        " ".join(_sentence(str(text)) for text in others if text),
    ]
    return tuple(filter(None, lines))


def _few_shot(evaluation: Mapping[str, Any]) -> Iterator[str]:
    found, name = evaluation.get("few_shot") or {}, leading_score(evaluation)
    entry = (found.get("scores") or {}).get(name)
    if entry is None or entry.get("difference") is None:
        return
    number, difference = len(found["examples"]), _difference(entry, "too few rows for an interval")
    examples = f"{number} training example{'s' * (number != 1)} in its prompt"
    yield f"With {examples} (few-shot), the base has {name} {format_number(entry['base'])}: {difference}."


def _clean(evaluation: Mapping[str, Any]) -> Iterator[str]:
    entry, rows = clean_entry(evaluation), (evaluation.get("clean") or {}).get("rows")
    if entry is None or entry.get("difference") is None:
        return
    yield f"On the {rows:,} rows whose prompt is not in train: {_difference(entry, 'too few for an interval')}."


def _difference(entry: Mapping[str, Any], without_interval: str) -> str:
    ends = entry.get("difference_interval")
    known = f"95 % interval {format_interval(ends, sign=True)}" if ends else without_interval
    return f"difference {format_number(entry['difference'], sign=True)} ({known})"


def _power(evaluation: Mapping[str, Any]) -> Iterator[str]:
    needed = (evaluation.get("primary") or {}).get("rows_for_power")
    if isinstance(needed, int):
        number = (
            f"{MIN_ROWS} or fewer"
            if needed <= MIN_ROWS
            else f"{LIMIT:,} or more"
            if needed >= LIMIT
            else f"about {needed:,}"
        )
        yield f"A difference of this size takes {number} rows to be seen (power 80 %)."


def _other_scores(evaluation: Mapping[str, Any]) -> Iterator[str]:
    found = corrected(evaluation)
    if not found:
        return
    better, worse = ([name for name, its in found.items() if its is wanted] for wanted in (True, False))
    parts = [f"{_names(names)} better" for names in (better,) if names]
    parts += [f"{_names(names)} worse" for names in (worse,) if names]
    said = " and ".join(parts) or "none significantly different"
    yield f"Of {len(found)} other score{'s' * (len(found) != 1)}: {said} (corrected for their number, Holm)."


def _names(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= NAMED else str(len(names))


def _sentence(text: str) -> str:
    """A sentence as it stands in running text."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
