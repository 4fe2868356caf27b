"""When the validation was best: one sentence for the end message, the report and the model card."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llmft.config.metric_names import monitor_mode
from llmft.report.curves import Series


@dataclass(frozen=True)
class BestStep:
    """The best and the last value of the monitored validation metric.

    Attributes:
        metric: Its name, such as ``val/loss``.
        step: Optimizer step of the best value; the first one if several are equal.
        value: The best value.
        last_step: Optimizer step of the last validation.
        last_value: Its value.
    """

    metric: str
    step: int
    value: float
    last_step: int
    last_value: float

    @property
    def turned(self) -> bool:
        """Whether the last value is worse than the best one."""
        return self.value != self.last_value

    @property
    def sentence(self) -> str:
        """When the metric was best, and what the steps after that did."""
        name = "validation loss" if self.metric == "val/loss" else self.metric
        best, worse = f"{self.value:.4g}", f"made it worse by {abs(self.last_value - self.value):.2g}"
        after = self.last_step - self.step
        if not self.turned:
            if self.step < self.last_step:
                return f"{name} was {best} at step {self.step}, and {_steps(after)} more did not improve it"
            return f"{name} was best at the end ({best} at step {self.step}): more steps may help"
        if self.step == 0:
            return f"{name} was best before training ({best}); {_steps(after)} {worse}: lower optim.lr"
        return f"{name} was best at step {self.step} of {self.last_step} ({best}); the last {_steps(after)} {worse}"

    def as_dict(self) -> dict[str, Any]:
        """For ``run.json``."""
        return asdict(self) | {"sentence": self.sentence}


def best_step(found: Mapping[str, Series], metric: str, mode: str = "auto") -> BestStep | None:
    """The best step by a validation metric.

    Args:
        found: The series of ``metrics.csv``.
        metric: The monitored metric.
        mode: ``min``, ``max``, or ``auto`` for the metric's own direction.

    Returns:
        None if the metric is not a validation metric (training loss keeps falling while a model overfits) or has fewer than
        two values.
    """
    series = found.get(metric)
    if not metric.startswith("val/") or series is None or len(series.values) < 2:
        return None
    sign = 1 if (monitor_mode(metric) if mode == "auto" else mode) == "min" else -1
    best = min(range(len(series.values)), key=lambda i: (sign * series.values[i], i))
    return BestStep(metric, series.steps[best], series.values[best], series.steps[-1], series.values[-1])


def _steps(number: int) -> str:
    return f"{number} step{'s' if number != 1 else ''}"
