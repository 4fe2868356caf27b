"""The lines below a headline: what qualifies it."""

from collections.abc import Mapping
from typing import Any


def details_of(evaluation: Mapping[str, Any], record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """At most two lines: on the scores; on what was forgotten and on the arithmetic of the training.

    Args:
        evaluation: The content of ``evaluation.json``.
        record: The content of ``run.json``; empty if unknown.
        name: The leading score.
    """
    del name
    found = [(evaluation.get("retention") or {}).get("sentence"), (record.get("prove") or {}).get("sentence")]
    line = " ".join(_sentence(str(text)) for text in found if text)
    return (line,) if line else ()


def _sentence(text: str) -> str:
    """A sentence as it stands in running text."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
