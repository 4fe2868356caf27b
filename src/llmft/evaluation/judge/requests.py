"""Build judge requests (prompts) from predictions."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmft.config.schema import judge as schema
from llmft.metrics.predictions import Prediction

REMINDER = {
    "score": "\n\nRespond with one integer from 0 to 100 and nothing else.",
    "pairwise": "\n\nRespond with A, B or TIE and nothing else.",
}
CUT = " [cut]"


@dataclass
class Request:
    """A request to a judge, and its result.

    Attributes:
        row: Index of the prediction.
        which: ``tuned`` or ``base``; in pairwise mode, the system that is response A.
        model: Name of the judge's model.
        seed: Seed of the judge.
        prompt: The complete prompt.
        key: Hash of judge, seed and prompt; requests with the same key are the same.
        cut: Whether a text in the prompt was truncated.
        result: The score, or ``A``, ``B``, ``TIE``; None if there is none.
        replies: The raw replies.
        reason: Why there is no result.
        finished: Whether a final reply, valid or not, was received; failed requests are sent again in the next run.
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


def build_requests(
    predictions: Sequence[Prediction], settings: schema.Judge, identity: Mapping[str, Any]
) -> list[Request]:
    """Build the requests for all predictions, systems (or both orders of a pair), judge models and seeds.

    Args:
        predictions: The predictions to judge.
        settings: The config of the judge group.
        identity: What the scores depend on besides model, seed and prompt.
    """
    found = []
    for row, prediction in enumerate(predictions):
        for which, template, texts in _questions(prediction, settings):
            prompt, cut = fill_template(template, texts, settings.max_characters)
            for model in settings.models:
                for seed in settings.seeds:
                    parts = (*sorted(identity.items()), model, seed, settings.max_new_tokens, prompt)
                    key = hashlib.sha256(repr(parts).encode()).hexdigest()
                    found.append(Request(row, which, model, seed, prompt, key, cut))
    return found


def fill_template(template: str, texts: Mapping[str, str], max_characters: int) -> tuple[str, bool]:
    """Fill in a prompt template; returns the prompt, and whether a text was truncated to ``max_characters``.

    The template puts each text between marks against prompt injection. A mark is a hash of the texts, so it is
    deterministic, but the author of a text cannot know it.
    """
    kept = {n: t if len(t) <= max_characters else t[:max_characters] + CUT for n, t in texts.items()}
    mark = "===" + hashlib.sha256("\0".join([template, *kept.values()]).encode("utf-8", "replace")).hexdigest()[:12]
    fields = {**kept, "mark": mark}
    # in one pass, so that a text that holds "{answer}" is not substituted again
    prompt = re.sub(r"\{(\w+)\}", lambda match: fields.get(match.group(1), match.group()), template)
    return prompt, kept != dict(texts)


def _questions(prediction: Prediction, settings: schema.Judge) -> list[tuple[str, str, dict[str, str]]]:
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
