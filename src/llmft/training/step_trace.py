"""What the first steps of a training computed, and in which quantities two trainings differ."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmft.referee.referee import TrainedStep
from llmft.referee.rows import TrainedRow

NUMBERS = {"loss": "loss", "grad_norm": "gradient norm", "lr": "learning rate"}
MARGIN = 10  # a number differs if it does so by more than this many times the difference of two equal trainings


class Change(NamedTuple):
    """A quantity that differs.

    Attributes:
        step: The first optimizer step where it does, from 1; None if it belongs to no step.
        difference: The largest relative difference of a number; None of anything else.
    """

    step: int | None = None
    difference: float | None = None


Changes = dict[str, Change]


@dataclass
class Trace:
    """The first steps of a training; an observer of ``StepRecorder``.

    Attributes:
        steps: In order.
        answers: The ids that the model generates after them.
    """

    steps: list[TrainedStep] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)

    def check(self, step: TrainedStep) -> None:
        """Keep a step."""
        self.steps.append(step)


def changes(reference: Trace, other: Trace, noise: Mapping[str, Change] | None = None) -> Changes:
    """The quantities in which two trainings differ.

    Args:
        reference: The training.
        other: Another one.
        noise: What two equal trainings differ in; numbers must differ by more.

    Returns:
        Of ``ids`` (an example has other ids, labels or weights), ``batches`` (other examples, or another order), ``loss``,
        ``gradient norm``, ``learning rate``, ``number of steps`` and ``generated ids`` those that differ.
    """
    found: Changes = {}
    several = _several(reference.steps) | _several(other.steps)
    examples, others = _examples(reference.steps, several), _examples(other.steps, several)
    common = examples.keys() & others.keys()
    if any(examples[place] != others[place] for place in common) or not common:
        found["ids"] = Change()
    pairs = list(zip(reference.steps, other.steps, strict=False))
    batches = [_places(one.window, several) != _places(two.window, several) for one, two in pairs]
    if any(batches):
        found["batches"] = Change(batches.index(True) + 1)
    for key, name in NUMBERS.items():
        differences = [relative_difference(one.numbers[key], two.numbers[key]) for one, two in pairs]
        allowed = MARGIN * ((noise or {}).get(name, Change()).difference or 0.0)
        if beyond := [step for step, difference in enumerate(differences, 1) if difference > allowed]:
            found[name] = Change(beyond[0], max(differences))
    if len(reference.steps) != len(other.steps):
        found["number of steps"] = Change()
    if reference.answers != other.answers:
        found["generated ids"] = Change()
    return found


def relative_difference(one: float, two: float) -> float:
    """The difference of two numbers as a fraction of the larger one; 0 if both are NaN, infinity if one is."""
    if one == two or (math.isnan(one) and math.isnan(two)):
        return 0.0
    difference = abs(one - two)
    return difference / max(abs(one), abs(two)) if math.isfinite(difference) else math.inf


def _examples(steps: Sequence[TrainedStep], several: set[str]) -> dict[Any, set[Any]]:
    """What each row became."""
    found: dict[Any, set[Any]] = {}
    for row in _rows(steps):
        found.setdefault(_row_key(row, several), set()).add((*row.identity, tuple(row.weights or ())))
    return found


def _places(window: Sequence[Sequence[TrainedRow]], several: set[str]) -> list[list[Any]]:
    return [[_row_key(row, several) for row in batch] for batch in window]


def _row_key(row: TrainedRow, several: set[str]) -> Any:
    """What tells rows apart although their ids may have changed: their place, if no other example is of the same place."""
    return row.identity if not row.place or row.place in several else row.place


def _several(steps: Sequence[TrainedStep]) -> set[str]:
    """Places of several examples: a conversation that was split, or rows in one line of a .json file."""
    identities: dict[str, set[Any]] = {}
    for row in _rows(steps):
        identities.setdefault(row.place, set()).add(row.identity)
    return {place for place, known in identities.items() if len(known) > 1}


def _rows(steps: Sequence[TrainedStep]) -> Iterator[TrainedRow]:
    return (row for step in steps for row in step.rows)
