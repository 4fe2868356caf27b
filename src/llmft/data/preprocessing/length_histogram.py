"""Encoded rows -> how many are how long."""

from collections.abc import Mapping
from typing import Any

import numpy as np

BINS = 16


def histogram(lengths: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Counts of rows by length in tokens: ``edges`` [bins + 1] and of each part [bins]; answers with stop token."""
    edges = np.linspace(0, max([1, *(int(values.max()) for values in lengths.values() if len(values))]) + 1, BINS + 1)
    counts = {name: np.histogram(values, edges)[0].tolist() for name, values in lengths.items()}
    return {"edges": [round(float(edge), 2) for edge in edges], **counts}
