"""The passport of an export: each check of the exported folder in its runtime against the trained model, and the verdict."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from llmft.data.records import Turn
from llmft.export.reference import Reference, ReferenceAnswer, mean_loss
from llmft.metrics.format import split_name
from llmft.runtimes.runtime import Form, Runtime

Status = Literal["passed", "failed", "not checked"]
# Largest difference of a logit (or log-probability) in the runtime of a form, for float32 weights. What rounding makes is in
# docs/export.md; a planted fault is far above.
TOLERANCES: dict[Form, float] = {"merged": 1e-3, "adapter": 1e-3, "ctranslate2": 1e-3, "gguf": 0.01, "onnx": 1e-3}
# In runtimes that compute in 16 bits: so many unit roundoffs of the largest logit (measured on SmolLM2: docs/export.md).
ROUNDOFFS = 16
UNIT_ROUNDOFF = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8}


def tolerance_of(form: Form, dtype: str, reference: Reference) -> float:
    """The form's own tolerance at a dtype: absolute for float32, relative to the largest logit for 16 bits."""
    largest = max(float(np.abs(one.logits).max()) for one in reference.answers)
    return max(TOLERANCES[form], ROUNDOFFS * UNIT_ROUNDOFF[dtype] * largest)


class Check(NamedTuple):
    """One line of a passport.

    Attributes:
        name: What is compared.
        passed: The verdict; None if it is only listed.
        found: The measured value, in words.
        wanted: What it must be, in words.
    """

    name: str
    passed: bool | None
    found: str
    wanted: str


@dataclass(frozen=True)
class Passport:
    """The result of opening an exported folder in its runtime.

    Attributes:
        form: The form.
        dtype: dtype of the weights.
        quantize: Quantization of the weights, if any.
        status: ``passed``, ``failed`` or ``not checked``.
        runtime: Name and version; empty if it is not installed.
        reason: Why it was not checked.
        difference: Largest difference of a logit; None if none was compared.
        checks: One for each comparison.
        later: Answers that differ after a position where the trained model's two best tokens are closer than the tolerance.
    """

    form: Form
    dtype: str
    quantize: str | None
    status: Status
    runtime: str = ""
    reason: str = ""
    difference: float | None = None
    checks: tuple[Check, ...] = ()
    later: tuple[str, ...] = ()

    def node(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {**asdict(self), "checks": [check._asdict() for check in self.checks], "later": list(self.later)}


class Judged(NamedTuple):
    """How an export is judged.

    Attributes:
        form: The form.
        dtype: dtype of the weights.
        quantize: Quantization, judged by the loss on held-out rows instead of logits and answers.
        tolerance: Largest difference of a logit.
        max_loss_increase: Largest increase of the loss of quantized weights, nats per token.
    """

    form: Form
    dtype: str
    quantize: str | None
    tolerance: float
    max_loss_increase: float


def compare(runtime: Runtime, reference: Reference, how: Judged, extra: Sequence[Check] = ()) -> Passport:
    """Compare an exported model with the trained one.

    Args:
        runtime: The exported folder in its runtime.
        reference: The trained model.
        how: The form and its limits.
        extra: Checks of the form's own, such as a flag in its config.
    """
    answers = _answers(runtime, reference)
    difference = largest_difference(runtime, reference.answers)
    equal = sum(one.answer == other for one, other in zip(reference.answers, answers, strict=True))
    compared = [_compared(*both, how.tolerance) for both in zip(reference.answers, answers, strict=True)]
    later = tuple(text for passed, text in compared if passed and text)
    failed = [text for passed, text in compared if not passed]
    total, judged = len(answers), how.quantize is None
    checks = [
        _prompts(runtime, reference.answers),
        _stops(runtime, reference, answers, judged=judged),
        *extra,
        Check(
            "logits", difference <= how.tolerance if judged else None, f"{difference:.2g}", f"at most {how.tolerance:g}"
        ),
        Check(
            "greedy answers", not failed if judged else None, "; ".join([f"{equal} of {total} equal", *failed]), "equal"
        ),
    ]
    if not judged:
        checks.append(_loss(runtime, reference, how.max_loss_increase))
    status = "failed" if any(check.passed is False for check in checks) else "passed"
    return Passport(how.form, how.dtype, how.quantize, status, runtime.name, "", difference, tuple(checks), later)


def rounding(trained: Reference, rounded: Reference, dtype: str) -> Check:
    """What rounding the weights to 16 bits does to the trained model; listed, as it is what was asked for."""
    pairs = list(zip(trained.answers, rounded.answers, strict=True))
    equal = [one for one, other in pairs if one.answer == other.answer]
    # along the same answer, up to where the two begin to differ
    found = max(float(np.abs(one.logits[:1] - other.logits[:1]).max()) for one, other in pairs)
    told = f"{len(equal)} of {len(pairs)} answers equal; first logits {found:.2g}"
    return Check(f"rounding to {dtype}", None, told, "listed")


def not_checked(how: Judged, reason: str) -> Passport:
    """The passport of an export whose runtime is not installed."""
    return Passport(how.form, how.dtype, how.quantize, "not checked", reason=reason)


def unusable(how: Judged, reason: str) -> Passport:
    """The passport of an export that its runtime refuses to open."""
    return Passport(how.form, how.dtype, how.quantize, "failed", reason=reason)


def largest_difference(runtime: Runtime, answers: Sequence[ReferenceAnswer]) -> float:
    """The largest difference of a logit along the trained model's answers; NaN if one is not finite."""
    found = []
    for one in answers:
        ours, theirs = one.logits, runtime.logits(one.prompt, one.answer)
        columns = min(ours.shape[1], theirs.shape[1])  # converters pad or cut rows that no token has
        found.append(np.abs(ours[:, :columns] - theirs[:, :columns]).max())
    return float(np.max(found))  # NaN wins


def _answers(runtime: Runtime, reference: Reference) -> list[list[int]]:
    limit = max(len(one.answer) for one in reference.answers)
    found = runtime.generate([one.prompt for one in reference.answers], limit)
    # an answer of the trained model that reached its limit has no stop token, and is compared as far as it goes
    return [ids[:limit] for ids in found]


def _prompts(runtime: Runtime, answers: Sequence[ReferenceAnswer]) -> Check:
    wrong = [one for one in answers if runtime.prompt_ids(one.context) != one.prompt]
    told = f"; first {_said(wrong[0].context)}" if wrong else ""
    return Check(
        "prompt ids", not wrong, f"{len(answers) - len(wrong)} of {len(answers)} equal{told}", "those of training"
    )


def _stops(runtime: Runtime, reference: Reference, answers: Sequence[list[int]], *, judged: bool) -> Check:
    """Whether the trained stop token ends an answer; of quantized weights only whether the folder names it."""
    met = [one for one in reference.answers if one.answer[-1] in reference.stop_ids]
    ended = [
        ids for one, ids in zip(reference.answers, answers, strict=True) if one in met and ids[-1:] == one.answer[-1:]
    ]
    known = reference.stop_id in runtime.stop_ids
    found = f"{reference.stop_id} {'stops' if known else 'does not stop'}"
    return Check(
        "stop token", known, f"{found}; met in {len(ended)} of {len(met)}" if judged else found, str(reference.stop_id)
    )


def _compared(one: ReferenceAnswer, other: list[int], tolerance: float) -> tuple[bool, str]:
    """Whether an answer is right, and where it differs; it may differ from the first near tie on."""
    if one.answer == other:
        return True, ""
    pairs = zip(one.answer, other, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one.answer), len(other)))
    margins = one.margins()[: at + 1]
    tied = bool((margins < tolerance).any())
    nearest = f"{margins.min():.2g}" if len(margins) else "none"
    return tied, f"{_said(one.context)} differs from token {at + 1} on (two best {nearest} apart)"


def _loss(runtime: Runtime, reference: Reference, limit: float) -> Check:
    found = mean_loss(runtime, reference.held_out)
    rise = found - reference.loss
    rows = f"{len(reference.held_out)} {split_name(reference.split)} rows"
    return Check(
        "held-out loss",
        rise <= limit,  # False for NaN
        f"{reference.loss:.4f} to {found:.4f} ({rise:+.4f}) on {rows}",
        f"at most +{limit:g} nats per token",
    )


def _said(context: Sequence[Turn]) -> str:
    text = " ".join(context[-1].content.split())
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
