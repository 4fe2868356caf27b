"""Loss over the number of training examples as a power law, and what twice the examples would give.

L(n) = a + b n^-c, the form of Hestness et al. (2017, "Deep Learning Scaling is Predictable, Empirically") and, for fine-tuning,
of Hernandez et al. (2021, "Scaling Laws for Transfer"). Intervals are those of a residual bootstrap (Efron, 1979) over all runs:
it holds both the noise of seeds and what the curve does not describe, and needs only one seed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PARAMETERS = 3
MIN_SIZES = 4  # different numbers of examples: one more than parameters, else the curve goes through all of them
EXPONENTS = np.geomspace(0.02, 4, 200)  # published exponents of fine-tuning are between 0.1 and 1
MIN_GAIN = 0.01  # of the loss at all examples: below it, more of the same examples are not worth their collection


class PowerLaw(NamedTuple):
    """L(n) = a + b n^-c, with a and b of at least 0."""

    a: float
    b: float
    c: float

    def __call__(self, examples: float) -> float:
        """The loss after training on so many examples."""
        return self.a + self.b * examples**-self.c


class Extrapolation(NamedTuple):
    """What twice the examples would give.

    Attributes:
        law: The fitted curve.
        examples: Number of examples of the largest runs.
        loss: Of the curve there.
        gain: Loss there minus loss at twice the examples, in the unit of the loss.
        interval: 95 % interval of the gain.
    """

    law: PowerLaw
    examples: int
    loss: float
    gain: float
    interval: tuple[float, float]

    @property
    def answer(self) -> str:
        """``more rows``, ``other rows, other model`` or ``not decided``: whether the interval is above or below ``MIN_GAIN``."""
        low, high = (end / self.loss for end in self.interval)
        if low > MIN_GAIN:
            return "more rows"
        return "other rows, other model" if high < MIN_GAIN else "not decided"


def fit(examples: Sequence[float], losses: Sequence[float]) -> PowerLaw:
    """The least-squares curve.

    Args:
        examples: Number of training examples of each run.
        losses: Its loss.
    """
    sizes = np.asarray(examples, float)
    scale = sizes.max()
    a, b, c = (float(values[0]) for values in _fits(sizes / scale, np.asarray([losses], float)))
    return PowerLaw(a, b * scale**c, c)


def extrapolate(
    examples: Sequence[int], losses: Sequence[float], *, resamples: int = 1000, seed: int = 0
) -> Extrapolation | None:
    """Twice the examples by the fitted curve.

    Args:
        examples: Number of training examples of each run.
        losses: Its loss.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        None for runs of fewer than ``MIN_SIZES`` different numbers of examples.
    """
    sizes, known = np.asarray(examples, float), np.asarray(losses, float)
    if len(np.unique(sizes)) < MIN_SIZES:
        return None
    largest = sizes.max()
    law = fit(examples, losses)
    fitted = law.a + law.b * sizes**-law.c
    residuals = known - fitted
    # the residuals of a fit are smaller than the noise, by its degrees of freedom
    residuals = (residuals - residuals.mean()) * np.sqrt(len(sizes) / (len(sizes) - PARAMETERS))
    drawn = np.random.default_rng(seed).choice(residuals, (resamples, len(sizes)))
    _, b, c = _fits(sizes / largest, fitted + drawn)
    gains = b * (1 - 2**-c)
    low, high = np.percentile(gains, (2.5, 97.5))
    return Extrapolation(law, int(largest), law(largest), law(largest) - law(2 * largest), (float(low), float(high)))


def _fits(sizes: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, b and c, each [fits], of the least-squares curves of ``losses`` [fits, runs].

    For each exponent of a grid the curve is linear in a and b; the exponent with the smallest squared error is taken. The largest
    of ``sizes`` [runs] is 1.
    """
    best = np.full(len(losses), np.inf)
    found = np.zeros((PARAMETERS, len(losses)))
    mean = losses.mean(axis=1)
    for c in EXPONENTS:
        x = sizes**-c
        slope = np.maximum((losses - mean[:, None]) @ (x - x.mean()) / ((x - x.mean()) @ (x - x.mean())), 0)
        free = mean - slope * x.mean()
        b = np.where(free < 0, losses @ x / (x @ x), slope)  # a loss is not below 0: then the curve goes to 0
        a = np.maximum(free, 0)
        error = ((losses - a[:, None] - b[:, None] * x) ** 2).sum(axis=1)
        better = error < best
        best[better] = error[better]
        found[:, better] = np.stack([a, b, np.full(len(losses), c)])[:, better]
    return found[0], found[1], found[2]
