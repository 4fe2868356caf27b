"""What a training computed against what the referee computed: differences, tolerances and the sentence."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Largest accepted difference by the precision of the training's matrix products, in the first step and in later ones.
# Relative, except ``update``: roundings of a float32 weight. Measured: docs/prove.md.
TOLERANCES: dict[str, dict[str, tuple[float, float]]] = {
    "float32": {"loss": (5e-5, 2e-4), "grad_norm": (5e-5, 5e-4), "gradient": (5e-4, 5e-3), "lr": (1e-9, 1e-9), "update": (8, 8)},
    "bfloat16": {"loss": (0.05, 0.1), "grad_norm": (0.05, 0.2), "gradient": (0.2, 0.5), "lr": (1e-9, 1e-9), "update": (8, 8)},
}  # fmt: skip
NAMES = {
    "loss": "loss",
    "grad_norm": "gradient norm",
    "gradient": "gradient after clipping",
    "lr": "learning rate",
    "update": "update",
}


@dataclass(frozen=True)
class Parting:
    """Where training and referee diverge.

    Attributes:
        step: Optimizer step, from 1.
        quantity: What differs.
        text: Both values in words.
    """

    step: int
    quantity: str
    text: str


@dataclass
class Proof:
    """The comparison of the first optimizer steps.

    Attributes:
        precision: ``float32`` or ``bfloat16``.
        per_step: Of each step: loss, gradient norm and learning rate of both, row ids, differences.
        parting: The first difference over its tolerance; None as long as all agree.
        rendered: Examples whose ids were rendered again.
        not_checked: What could not be checked, with the number of examples or the reason.
    """

    precision: str
    per_step: list[dict[str, Any]] = field(default_factory=list)
    parting: Parting | None = None
    rendered: int = 0
    not_checked: dict[str, int] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether all compared numbers are within their tolerances."""
        return self.parting is None

    @property
    def largest(self) -> float:
        """The largest relative difference of a loss or a gradient norm."""
        found = [step["difference"][name] for step in self.per_step for name in ("loss", "grad_norm")]
        return max(found, default=0.0)

    def part(self, quantity: str, text: str) -> None:
        """Note a difference; the first one counts."""
        self.parting = self.parting or Parting(len(self.per_step) + 1, quantity, text)

    def add(
        self, training: dict[str, float], referee: dict[str, float], differences: dict[str, float], rows: Sequence[str]
    ) -> None:
        """Compare a step.

        Args:
            training: ``loss``, ``grad_norm`` and ``lr``.
            referee: The same.
            differences: By the names of ``TOLERANCES``.
            rows: Places of the step's examples.
        """
        for name, difference in differences.items():
            allowed = TOLERANCES[self.precision][name][bool(self.per_step)]
            if not difference <= allowed:  # NaN parts too
                self.part(NAMES[name], _both(name, training, referee, difference, allowed))
        values = training | {f"{name}_referee": v for name, v in referee.items()}
        self.per_step.append({"step": len(self.per_step) + 1, **values, "rows": list(rows), "difference": differences})

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        steps = f"{len(self.per_step)} step{'s' * (len(self.per_step) != 1)}"
        if self.parting:
            return (
                f"training and referee diverge at step {self.parting.step}: {self.parting.quantity} {self.parting.text}"
            )
        checked = f"{self.precision}, {self.rendered} rows rendered again"
        return f"training arithmetic agrees to {self.largest:.1g} over {steps} ({checked})"

    def as_dict(self) -> dict[str, Any]:
        """For ``run.json``."""
        return {
            "steps": len(self.per_step),
            "agrees": self.agrees,
            "largest": self.largest,
            "precision": self.precision,
            "tolerances": TOLERANCES[self.precision],
            "rendered": self.rendered,
            "not_checked": self.not_checked,
            "parting": asdict(self.parting) if self.parting else None,
            "per_step": self.per_step,
            "sentence": self.sentence,
        }


def relative(value: float, reference: float, scale: float) -> float:
    """The difference as a part of a scale; infinite if the scale is 0, or for a value that is not finite."""
    if value == reference:
        return 0.0
    return abs(value - reference) / scale if scale and math.isfinite(value) else math.inf


def _both(name: str, training: dict[str, float], referee: dict[str, float], difference: float, allowed: float) -> str:
    if name in training:
        values = f"{training[name]:.6g} in the training, {referee[name]:.6g} in the referee"
        return f"{values} (differ by {difference:.1g}, tolerance {allowed:g})"
    return f"differs by {difference:.2g} (tolerance {allowed:g})"
