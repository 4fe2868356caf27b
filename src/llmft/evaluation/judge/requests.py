"""A prediction -> what the judge is asked about it."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmft.metrics.predictions import Prediction

REMINDER = {
    "score": "\n\nRespond with one integer from 0 to 100 and nothing else.",
    "pairwise": "\n\nRespond with A, B or TIE and nothing else.",
}
CUT = " [cut]"


@dataclass
class Request:
    """One question to one judge, and what came of it.

    Attributes:
        row: Which prediction.
        which: ``tuned`` or ``base``; of a pair, which of them stands as response A.
        key: What makes two requests the same: judge, seed and prompt.
        result: The score, or ``A``, ``B``, ``TIE``; None where there is none.
        replies: As they came.
        reason: Why there is no result.
        finished: Whether the judge has spoken, be it nonsense; a request that failed on the way is asked again.
    """

    row: int
    which: str
    model: str
    seed: int
    prompt: str
    key: str
    cut: bool
    result: int | str | None = None
    replies: list[str] = field(default_factory=list)
    reason: str | None = None
    finished: bool = False


def requests(predictions: Sequence[Prediction], settings: Any, identity: Mapping[str, Any]) -> list[Request]:
    """Every question there is to ask: each row, tuned and base (or both orders of them), each judge and seed.

    Args:
        predictions: What is judged.
        settings: The config of the judge group.
        identity: What of the judge makes its scores its own, besides model, seed and prompt.
    """
    found = []
    for row, prediction in enumerate(predictions):
        for which, template, texts in _questions(prediction, settings):
            prompt, cut = fenced(template, texts, settings.max_characters)
            for model in settings.models:
                for seed in settings.seeds:
                    said = (*sorted(identity.items()), model, seed, settings.max_new_tokens, prompt)
                    key = hashlib.sha256(repr(said).encode()).hexdigest()
                    found.append(Request(row, which, model, seed, prompt, key, cut))
    return found


def fenced(template: str, texts: Mapping[str, str], max_characters: int) -> tuple[str, bool]:
    """The prompt, each text between marks that no text can hold, and whether a text was cut.

    The mark is derived from the texts, so it is the same each time and cannot be known to who wrote them.
    """
    kept = {n: t if len(t) <= max_characters else t[:max_characters] + CUT for n, t in texts.items()}
    mark = "===" + hashlib.sha256("\0".join([template, *kept.values()]).encode("utf-8", "replace")).hexdigest()[:12]
    fields = {**kept, "mark": mark}
    # all at once: a text that holds "{answer}" stays as it is
    prompt = re.sub(r"\{(\w+)\}", lambda match: fields.get(match.group(1), match.group()), template)
    return prompt, kept != dict(texts)


def _questions(prediction: Prediction, settings: Any) -> list[tuple[str, str, dict[str, str]]]:
    given = {"question": prediction.question, "reference": prediction.reference}
    tuned, base = prediction.answer, prediction.base_answer
    if settings.mode == "pairwise":
        template, base = settings.pairwise_prompt, base or ""
        return [
            ("tuned", template, {**given, "a": tuned, "b": base}),
            ("base", template, {**given, "a": base, "b": tuned}),
        ]
    answers = {"tuned": tuned} | ({} if base is None else {"base": base})
    return [(which, settings.prompt, {**given, "answer": answer}) for which, answer in answers.items()]
