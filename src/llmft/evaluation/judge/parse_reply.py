"""Strictly parse a judge's reply to a score or a choice."""

import json
import re
from typing import Any

# Markdown's emphasis and code, and a full stop at the end, are no part of a reply.
MARK = r"[*_`]{0,3}"
LABEL = rf"(?:score{MARK}\s*[:=]{MARK}\s*)?"
SCORE = re.compile(rf"{MARK}{LABEL}{MARK}([+-]?[0-9]+){MARK}\.?{MARK}", re.IGNORECASE)
CHOICE = re.compile(rf"{MARK}(A|B|TIE){MARK}\.*{MARK}", re.IGNORECASE)
INTEGER = re.compile(r"[+-]?[0-9]+")
FENCE = "```"


class InvalidReply(ValueError):
    """A reply without a valid score or choice; the message says why."""


def parse_score(reply: str) -> int:
    """Parse a score from 0 to 100: the complete reply is an integer, ``Score: n`` on each line, or JSON with one ``score``.

    They may be in bold or in a fence, and end with a full stop (``**Score: 85**``, ``85.``). A number within prose is
    invalid, since the judge may quote the answer that it judges.

    Raises:
        InvalidReply: The reply has another form, holds different scores, or a score outside of 0 to 100.
    """
    text = _without_fence(reply)
    if not text:
        raise InvalidReply("empty")
    found = (
        _in_json(text.removesuffix("."))
        if text.startswith("{")
        else {_in_line(line) for line in text.splitlines() if line.strip()}
    )
    if len(found) > 1:
        raise InvalidReply(f"different scores: {', '.join(map(str, sorted(found)))}")
    score = found.pop()
    if not 0 <= score <= 100:
        raise InvalidReply(f"{score} is not from 0 to 100")
    return score


def parse_choice(reply: str) -> str:
    """Parse a choice: the complete reply is ``A``, ``B`` or ``TIE``, perhaps in bold or in a fence, or with a full stop.

    Raises:
        InvalidReply: The reply is anything else.
    """
    if not (match := CHOICE.fullmatch(_without_fence(reply))):
        raise InvalidReply("neither A, B nor TIE")
    return match.group(1).upper()


def _without_fence(reply: str) -> str:
    """The text inside a code fence, of one line or several, or the reply itself."""
    text = reply.strip()
    inner = text[len(FENCE) : -len(FENCE)]
    if len(text) <= 2 * len(FENCE) or not (text.startswith(FENCE) and text.endswith(FENCE)) or FENCE in inner:
        return text
    language = re.match(r"(?:json|text|plaintext|markdown)\b", inner, re.IGNORECASE)
    return inner[language.end() if language else 0 :].strip()


def _in_line(line: str) -> int:
    match = SCORE.fullmatch(line.strip())
    if not match:
        raise InvalidReply("prose, not an integer")
    digits = match.group(1)
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
