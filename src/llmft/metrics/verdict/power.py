"""How many test examples it takes to see a difference of the size that was measured."""

import numpy as np

from llmft.metrics.bootstrap import MIN_ROWS, Table
from llmft.metrics.metric import Metric

POWER = 0.8
Z = 1.959964  # of a two-sided 95 % interval
SIMULATED = 300  # test sets of each size: their share is exact to 2.3 % (one standard error)
ROWS = 1000  # pairs to draw from; more change the result by less than the simulation does
LIMIT = 100_000
# Round numbers, about 20 % apart.
SIZES = tuple(
    size
    for power in range(6)
    for digits in (10, 12, 15, 20, 25, 30, 40, 50, 60, 80)
    if MIN_ROWS <= (size := digits * 10**power // 10) <= LIMIT
)


def rows_needed(metric: Metric, tuned: Table, base: Table, *, seed: int) -> int | None:
    """The number of examples on which a difference of this size is seen with a power of 80 %.

    Simulated test sets of n examples are drawn with replacement from the paired ones. The difference is seen in one of them if
    it is further from 0 than 1.96 standard errors at n, the standard deviation over the simulated sets. The smallest round
    number n is returned for which 80 % of them show it, in the direction of the measured difference. (A plan for a next test
    set that takes the measured difference for the true one, not evidence about this one: Hoenig and Heisey 2001, "The abuse
    of power".)

    Args:
        metric: The score.
        tuned: Its statistics, [examples, statistics].
        base: Of the other system, same shape.
        seed: Of the simulation.

    Returns:
        A number from ``SIZES``; ``LIMIT`` also stands for more. None if there is no difference, it is undefined, or there are
        fewer than ``MIN_ROWS`` examples.
    """
    random = np.random.default_rng(seed)
    measured = _differences(metric, tuned.sum(0)[None], base.sum(0)[None])[0]
    if len(tuned) < MIN_ROWS or not np.isfinite(measured) or measured == 0:
        return None
    low, high = 0, len(SIZES) - 1  # the power grows with the number of examples
    while low < high:
        middle = (low + high) // 2
        draws = random.multinomial(SIZES[middle], np.full(len(tuned), 1 / len(tuned)), size=SIMULATED).astype(float)
        found = _differences(metric, draws @ tuned, draws @ base) * np.sign(measured)
        found = found[~np.isnan(found)]
        if len(found) and (found > Z * found.std()).mean() >= POWER:
            high = middle
        else:
            low = middle + 1
    return SIZES[low]


def _differences(metric: Metric, tuned: Table, base: Table) -> Table:
    """Of sums of statistics, [n, statistics]: tuned minus base, [n]; NaN where undefined."""
    pairs = zip(tuned.tolist(), base.tolist(), strict=True)
    scored = ((metric.score(ours), metric.score(theirs)) for ours, theirs in pairs)
    return np.array([np.nan if a is None or b is None else a - b for a, b in scored])
