"""The size of a split's references in tokens and in UTF-8 bytes, by which losses of different tokenizers are compared."""

import hashlib
from typing import Any

import numpy as np

from llmft.data.preprocessing.arrow_store import ArrowTable, RowColumns


def reference_size(
    examples: ArrowTable, columns: RowColumns, rows: np.ndarray, *, answers_only: bool, max_answer: int
) -> dict[str, Any]:
    """What the loss of a split was measured on.

    Args:
        examples: The examples of the data set.
        columns: The columns of its encoded rows.
        rows: Row numbers of the split.
        answers_only: Whether the last answer of an example is all that is supervised.
        max_answer: Token budget of an answer.

    Returns:
        ``rows``; ``identity``, a hash of prompts and answers that depends on neither model nor order; ``tokens``, supervised, and
        ``bytes`` of the answers, so that loss times ``tokens`` over ``bytes`` is nats per byte. Both are None if answers are not
        all that is supervised: cut to the budget, with reasoning, tool calls or weights, or with ``answers_only`` False.
    """
    hashes, tokens = np.sort(columns["row"][rows]), columns["answer_tokens"][rows]
    identity = hashlib.sha256(hashes.tobytes()).hexdigest()[:16]
    size = None
    if answers_only and len(rows) and int(tokens.max()) <= max_answer:
        size = _answer_bytes(examples, columns["example"][rows])
    known = {"tokens": None if size is None else int(tokens.sum()), "bytes": size}
    return {"rows": len(rows), "identity": identity, **known}


def _answer_bytes(examples: ArrowTable, numbers: np.ndarray) -> int | None:
    """UTF-8 bytes of the answers of these examples; None if one of them has more than a text, or if there are none."""
    total = 0
    for index in range(examples.reader.num_record_batches):
        start, end = examples.starts[index : index + 2]
        here = numbers[(numbers >= start) & (numbers < end)] - start
        if not len(here):
            continue
        batch = examples.reader.get_batch(index)
        if batch.column("more").take(here.tolist()).null_count < len(here):
            return None
        answers = batch.column("answer")
        offsets = np.frombuffer(answers.buffers()[1], np.int32, len(answers) + 1, 4 * answers.offset)
        total += int(np.diff(offsets)[here].sum())
    return total or None
