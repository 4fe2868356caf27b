"""Encoded rows -> a batch to train on; prompts -> a batch to generate from."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Dataset

from llmft.data.batching.sampler import Pack
from llmft.data.tokenization.codec import IGNORED, EncodedExample


class PackedDataset(Dataset[list[EncodedExample]]):
    """Rows by the lines that a batch sampler gives; a filler line ``(~row,)`` is that row without labels."""

    def __init__(self, rows: Sequence[EncodedExample]) -> None:
        self.rows = rows

    def __getitem__(self, line: Pack) -> list[EncodedExample]:
        return [self.rows[row] if row >= 0 else _unlabelled(self.rows[~row]) for row in line]


def _unlabelled(row: EncodedExample) -> EncodedExample:
    return replace(row, labels=[IGNORED] * len(row.labels), supervised=0, place="")


def training_batch(lines: Sequence[Sequence[EncodedExample]], pad_id: int) -> dict[str, Any]:
    """Right-padded lines of one row each; where a line holds several, also where in it each of them stands.

    The attention mask comes from lengths, so a pad id that equals the stop token harms nothing.

    Example: rows with ids ``[5, 6, E]`` (labels ``[-100, 6, E]``) and ``[7, E]`` (labels ``[-100, E]``), pad id E::

        two lines   input_ids       [[5, 6, E], [7, E, E]]
                    attention_mask  [[1, 1, 1], [1, 1, 0]]
                    labels          [[-100, 6, E], [-100, E, -100]]

        one line    input_ids       [[5, 6, E, 7, E]]
                    attention_mask  [[1, 1, 1, 1, 1]]
                    labels          [[-100, 6, E, -100, E]]
                    rows            [[0, 0, 0, 1, 1]]
                    label_rows      [[0, 0, 0, 1, 1]]

    Returns:
        ``input_ids`` [B, S], ``attention_mask`` [B, S], ``labels`` [B, S] (causal) or [B, T] (seq2seq), all int64;
        ``rows`` [B, S] and ``label_rows`` (as ``labels``), which row of its line a token belongs to and -1 for padding, int64,
        only where rows are packed; ``places``, a list of strings, one for each row.
    """
    ids = [[i for row in line for i in row.input_ids] for line in lines]
    labels = [[i for row in line for i in row.labels] for line in lines]
    padded = _pad(ids, pad_id)
    batch = {
        "input_ids": padded,
        "attention_mask": _mask([len(line) for line in ids], padded.shape[1]),
        "labels": _pad(labels, IGNORED),
        "places": [row.place for line in lines for row in line if row.place],
    }
    if any(len(line) > 1 for line in lines):
        batch["rows"] = _pad([_numbers(len(row.input_ids) for row in line) for line in lines], -1)
        batch["label_rows"] = _pad([_numbers(len(row.labels) for row in line) for line in lines], -1)
    return batch


def _numbers(lengths: Iterable[int]) -> list[int]:
    return [number for number, length in enumerate(lengths) for _ in range(length)]


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
