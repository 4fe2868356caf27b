"""Encoded rows -> how many are how long."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmft.encoding import Encoded

BINS = 16


def histogram(encoded: Mapping[str, Sequence[Encoded]]) -> dict[str, Any]:
    """Counts of rows by length in tokens: ``edges`` [bins + 1], ``prompt`` and ``answer`` [bins]; answers with stop token."""
    rows = [row for split in encoded.values() for row in split]
    prompts, answers = [row.prompt_length for row in rows], [row.answer_length for row in rows]
    edges = np.linspace(0, max([*prompts, *answers, 1]) + 1, BINS + 1)
    counts = {
        name: np.histogram(values, edges)[0].tolist() for name, values in (("prompt", prompts), ("answer", answers))
    }
    return {"edges": [round(float(edge), 2) for edge in edges], **counts}
