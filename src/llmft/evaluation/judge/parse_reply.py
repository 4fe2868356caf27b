"""A judge's reply -> the score or choice in it; anything that is not exactly that is invalid."""

import json
import re
from typing import Any

LABELLED = re.compile(r"score\s*[:=]\s*([+-]?[0-9]+)", re.IGNORECASE)
INTEGER = re.compile(r"[+-]?[0-9]+")
FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)
CHOICES = ("A", "B", "TIE")


class InvalidReply(ValueError):
    """A reply that is no score; says why."""


def score_in(reply: str) -> int:
    """The score: the whole reply is an integer, ``Score: n`` (on every line), or a JSON object with one ``score``.

    A number inside prose does not count: it may be the candidate's own words repeated.

    Raises:
        InvalidReply: It is none of these, says two things, or is outside 0 to 100.
    """
    text = reply.strip()
    if fenced := FENCE.fullmatch(text):
        text = fenced.group(1).strip()
    if not text:
        raise InvalidReply("empty")
    found = _in_json(text) if text.startswith("{") else {_in_line(line) for line in text.splitlines() if line.strip()}
    if len(found) > 1:
        raise InvalidReply(f"different scores: {', '.join(map(str, sorted(found)))}")
    score = found.pop()
    if not 0 <= score <= 100:
        raise InvalidReply(f"{score} is not from 0 to 100")
    return score


def choice_in(reply: str) -> str:
    """``A``, ``B`` or ``TIE``: the whole reply.

    Raises:
        InvalidReply: It is something else.
    """
    text = reply.strip().rstrip(".").upper()
    if text not in CHOICES:
        raise InvalidReply("neither A, B nor TIE")
    return text


def _in_line(line: str) -> int:
    line = line.strip()
    match = LABELLED.fullmatch(line)
    digits = match.group(1) if match else line if INTEGER.fullmatch(line) else ""
    if not digits:
        raise InvalidReply("prose, not an integer")
    if len(digits) > 9:  # int() of a long one would take minutes
        raise InvalidReply("a number beyond all scales")
    return int(digits)


def _in_json(text: str) -> set[int]:
    pairs: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.extend(found)
        return dict(found)

    try:
        whole = json.loads(text, object_pairs_hook=keep, parse_int=lambda digits: digits)
    except (ValueError, RecursionError):
        raise InvalidReply("broken JSON") from None
    scores = [value for key, value in pairs if key.lower() == "score"]  # of inner objects and repeated keys too
    if not isinstance(whole, dict) or not scores:
        raise InvalidReply("JSON without a score")
    if not all(isinstance(value, str) and INTEGER.fullmatch(value.strip()) for value in scores):
        raise InvalidReply("a score that is not an integer")
    return {_in_line(value) for value in scores}
