"""Encoded rows -> a batch to train on; prompts -> a batch to generate from."""

from collections.abc import Sequence
from typing import Any

import torch

from llmft.encoding import IGNORED, Encoded


def training_batch(rows: Sequence[Encoded], pad_id: int) -> dict[str, Any]:
    """Right-padded rows; the attention mask comes from lengths, so a pad id that equals the stop token harms nothing.

    Example: rows with ids ``[5, 6, E]`` (labels ``[-100, 6, E]``) and ``[7, E]`` (labels ``[-100, E]``), pad id E::

        input_ids       [[5, 6, E], [7, E, E]]
        attention_mask  [[1, 1, 1], [1, 1, 0]]
        labels          [[-100, 6, E], [-100, E, -100]]

    Returns:
        ``input_ids`` [B, S], ``attention_mask`` [B, S], ``labels`` [B, S] (causal) or [B, T] (seq2seq), all int64;
        ``places``, a list of B strings.
    """
    ids = _pad([row.input_ids for row in rows], pad_id)
    return {
        "input_ids": ids,
        "attention_mask": _mask([len(row.input_ids) for row in rows], ids.shape[1]),
        "labels": _pad([row.labels for row in rows], IGNORED),
        "places": [row.place for row in rows],
    }


def generation_batch(prompts: Sequence[Sequence[int]], pad_id: int, *, pad_left: bool) -> dict[str, torch.Tensor]:
    """Prompts to continue: padded on the left for a causal model (it goes on at the right end), on the right for an encoder.

    Returns:
        ``input_ids`` [B, S] and ``attention_mask`` [B, S], int64.
    """
    ids = _pad(prompts, pad_id, left=pad_left)
    return {"input_ids": ids, "attention_mask": _mask([len(ids_) for ids_ in prompts], ids.shape[1], left=pad_left)}


def _pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> torch.Tensor:
    width = max(map(len, rows))
    filled = [
        [value] * (width - len(row)) * left + list(row) + [value] * (width - len(row)) * (not left) for row in rows
    ]
    return torch.tensor(filled, dtype=torch.long)


def _mask(lengths: Sequence[int], width: int, *, left: bool = False) -> torch.Tensor:
    positions = torch.arange(width).expand(len(lengths), width)
    sizes = torch.tensor(lengths)[:, None]
    return ((positions >= width - sizes) if left else (positions < sizes)).long()
