"""The attention of a batch: which kernel, by the length of its lines; rows that lie in one line on a CPU each by itself."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor

from llmft.models.attention import varlen


@contextmanager
def attention_for(
    model: Any, length: int, rows: Tensor | None, sources: Tensor | None = None, *, by_length: bool
) -> Iterator[None]:
    """Choose the attention of a forward pass.

    Args:
        model: Of transformers, or around one.
        length: Tokens of its longest line.
        rows: [B, T], which row of its line a token belongs to, where rows are to be taken one by one; else None.
        sources: [B, S], the same of the encoder of a seq2seq model.
        by_length: Whether short lines shall have eager attention.
    """
    before = model.config._attn_implementation
    if rows is not None:
        wanted, alone = varlen.NAME, varlen.rows_alone(model, rows, sources)
    else:
        wanted, alone = ("eager" if by_length and length <= varlen.EAGER_UP_TO else before), nullcontext()
    with alone:
        if wanted != before:
            model.set_attn_implementation(wanted)
        try:
            yield
        finally:
            if wanted != before:  # answers, too, would be computed otherwise from then on
                model.set_attn_implementation(before)
