"""Absolute positions of a packed encoder-decoder: they restart at 0 in each example (BART, Pegasus, Marian, M2M100, ...).

These models take no position ids. Their position embedding is a submodule, ``embed_positions``, that is called with the whole
sequence and adds vector p to token p. Here it is called with as many tokens as the longest example has, and its vectors are
gathered by the position within the example; so a packed sequence may also be longer than the table.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from llmft.models.attention.packing import positions_in_rows

NAME = "embed_positions"


def position_modules(model: Any) -> tuple[Any, Any] | None:
    """The position embeddings of encoder and decoder; None if one of them has none (T5's bias, rotary positions)."""
    found = [getattr(part, NAME, None) for part in (model.get_encoder(), model.get_decoder())]
    return (found[0], found[1]) if all(part is not None for part in found) else None


@contextmanager
def restarted_positions(
    model: Any, sources: Tensor, targets: Tensor, longest: tuple[int, int] | None = None
) -> Iterator[None]:
    """Restart absolute positions in each example, for a forward pass without a cache.

    Args:
        model: A transformers or peft encoder-decoder; nothing is done if its positions are relative.
        sources: [B, S], segment ids of the encoder.
        targets: [B, T], segment ids of the decoder.
        longest: Tokens of the longest example on both sides; None to ask their device.
    """
    modules = position_modules(model) or ()
    for module, rows, known in zip(modules, (sources, targets), longest or (None, None), strict=False):
        # padding may be longer than any example, and than the table
        positions = positions_in_rows(rows).masked_fill(rows < 0, 0)
        module.forward = _restarted(module, positions, known or int(positions.max()) + 1)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _restarted(module: Any, positions: Tensor, longest: int) -> Any:
    """The forward pass of a position embedding, of the longest example, gathered at ``positions`` [B, S]."""
    forward, width = module.forward, positions.shape[1]
    # M2M100 counts the ids that are no padding
    token = (getattr(module, "padding_idx", None) or 0) + 1

    def call(first: Any, *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(first, Tensor):
            first = torch.full_like(first, token)
        vectors = forward(
            *(_shortened(argument, width, longest) for argument in (first, *args)),
            **{name: _shortened(argument, width, longest) for name, argument in kwargs.items()},
        )
        at = positions.to(vectors.device)  # on the meta device in an estimate
        if vectors.ndim == 2:  # [L, D], the same for every sequence
            return vectors[at]
        index = at[..., None].expand(-1, -1, vectors.shape[-1])
        return vectors.expand(len(positions), -1, -1).gather(1, index)

    return call


def _shortened(argument: Any, width: int, longest: int) -> Any:
    """An argument for the first ``longest`` of ``width`` tokens: ids [B, S] or [S], embeddings [B, S, D], or the shape [B, S]."""
    if isinstance(argument, Tensor):
        axis = 0 if argument.ndim == 1 else 1
        return argument.narrow(axis, 0, longest) if argument.ndim and argument.shape[axis] == width else argument
    if isinstance(argument, tuple) and len(argument) > 1 and argument[1] == width:
        return torch.Size((argument[0], longest, *argument[2:]))
    return argument
