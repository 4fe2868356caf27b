"""Counts as lines of text."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

TITLES = {
    "mismatch": "tensors of several devices",
    "sync": "the host waits",
    "copy": "copies that nobody waits for",
    "attention": "scaled_dot_product_attention",
    "product": "matrix products",
}


def steady(counts: Mapping[str, Any]) -> list[int]:
    """The steps without what happens once: all but the first two and the last; all, if there are no others."""
    return list(range(2, counts["steps"] - 1)) or list(range(counts["steps"]))


def in_steps(
    counts: Mapping[str, Any], kind: str, name: Callable[[Mapping[str, Any]], str]
) -> Counter[tuple[str, str]]:
    """How often each event of a kind happened in the steady steps of the training loop, all together.

    Args:
        counts: From ``Counts.as_dict``.
        kind: Of the events.
        name: ``where``, or ``cause`` without lines.

    Returns:
        Numbers by what and where.
    """
    steps, found = steady(counts), Counter[tuple[str, str]]()
    for event in counts["events"]:
        if event["kind"] == kind and event["phase"] == "train" and event["step"] in steps:
            found[event["what"], name(event)] += event["number"]
    return found


def cause(event: Mapping[str, Any]) -> str:
    """The function that is to blame for an event: of transformers or peft if it was there, else of llmft or Lightning."""
    return event["inner"] if event["inner"].startswith(("transformers/", "peft/")) else event["place"]


def where(event: Mapping[str, Any]) -> str:
    """File, function and line of an event, and the library's function that it was in."""
    inner = "" if event["inner"] in (event["place"], "?") else f" (in {event['inner']})"
    return f"{event['place']}:{event['line']}{inner}" if event["line"] else event["place"]


def table(counts: Mapping[str, Any]) -> str:
    """What a step of the training asked of the device, then waits and answers of everything else."""
    steps = steady(counts)
    operations = sum(one["number"] for one in counts["operations"] if one["phase"] == "train" and one["step"] in steps)
    number = max(len(steps), 1)
    lines = [f"\nA training step (mean of {number}): {operations / number:.0f} device operations"]
    for kind, title in TITLES.items():
        found = in_steps(counts, kind, where)
        lines.append(f"{title}: {sum(found.values()) / number:.4g}")
        lines += _rows((what, place, n / number) for (what, place), n in found.most_common())
    lines.append("\nAll else")
    rest: Counter[tuple[str, str]] = Counter()
    for event in counts["events"]:
        outside = event["phase"] != "train" or event["step"] not in steps
        if outside and event["kind"] in ("mismatch", "sync", "answers"):
            rest[f"{event['kind']}: {event['what']}", f"{event['phase']}: {where(event)}"] += event["number"]
    return "\n".join([*lines, *_rows((what, place, n) for (what, place), n in rest.most_common(40))])


def _rows(rows: Iterable[tuple[str, str, float]]) -> list[str]:
    return [f"  {number:7.4g}  {what:<32} {place}" for what, place, number in rows]
