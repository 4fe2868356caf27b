"""Loss of an answer in any runtime, from its teacher-forced logits."""

from collections.abc import Sequence

import numpy as np

from llmft.runtimes.runtime import Runtime


def answer_loss(runtime: Runtime, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Cross-entropy of an answer's ids in nats, summed."""
    found = log_softmax(runtime.logits(prompt, answer))
    return -float(found[np.arange(len(answer)), list(answer)].sum())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of logits [T, V], float64; those of log-probabilities are themselves."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
