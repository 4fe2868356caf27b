"""Strictly parse a judge's reply to a score or a choice."""

import json
import re
from typing import Any

LABELLED = re.compile(r"score\s*[:=]\s*([+-]?[0-9]+)", re.IGNORECASE)
INTEGER = re.compile(r"[+-]?[0-9]+")
FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)
CHOICES = ("A", "B", "TIE")


class InvalidReply(ValueError):
    """A reply without a valid score or choice; the message says why."""


def parse_score(reply: str) -> int:
    """Parse a score from 0 to 100: the complete reply is an integer, ``Score: n`` on each line, or JSON with one ``score``.

    A number within prose is invalid, since the judge may quote the answer that it judges.

    Raises:
        InvalidReply: The reply has another form, holds different scores, or a score outside of 0 to 100.
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


def parse_choice(reply: str) -> str:
    """Parse a choice: the complete reply is ``A``, ``B`` or ``TIE``.

    Raises:
        InvalidReply: The reply is anything else.
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
    if len(digits) > 9:  # int() takes quadratic time
        raise InvalidReply("a number with more than 9 digits")
    return int(digits)


def _in_json(text: str) -> set[int]:
    pairs: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.extend(found)
        return dict(found)

    try:
        parsed = json.loads(text, object_pairs_hook=keep, parse_int=lambda digits: digits)
    except (ValueError, RecursionError):
        raise InvalidReply("invalid JSON") from None
    scores = [value for key, value in pairs if key.lower() == "score"]  # nested objects and repeated keys included
    if not isinstance(parsed, dict) or not scores:
        raise InvalidReply("JSON without a score")
    if not all(isinstance(value, str) and INTEGER.fullmatch(value.strip()) for value in scores):
        raise InvalidReply("a score that is not an integer")
    return {_in_line(value) for value in scores}
