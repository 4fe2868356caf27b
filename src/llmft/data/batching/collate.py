"""Collate functions: encoded examples -> a training batch, prompts -> a generation batch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Dataset

from llmft.data.batching.sampler import Pack
from llmft.data.tokenization.codec import IGNORED, EncodedExample


class PackedDataset(Dataset[list[EncodedExample]]):
    """The examples of a (packed) sequence, as the batch sampler gives it; a filler ``(~row,)`` is a row without labels."""

    def __init__(self, rows: Sequence[EncodedExample]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, pack: Pack) -> list[EncodedExample]:
        return [self.rows[row] if row >= 0 else _without_labels(self.rows[~row]) for row in pack]


def _without_labels(row: EncodedExample) -> EncodedExample:
    return replace(row, labels=[IGNORED] * len(row.labels), supervised=0, place="", weights=None)


def training_batch(
    sequences: Sequence[Sequence[EncodedExample]], pad_id: int, *, weighted: bool = True
) -> dict[str, Any]:
    """Collate sequences of one example each, or of several (packed), with right padding.

    The attention mask is made from the lengths, so the pad token may equal the stop token.

    Example: ids ``[5, 6, E]`` (labels ``[-100, 6, E]``) and ``[7, E]`` (labels ``[-100, E]``), pad id E::

        two sequences        input_ids       [[5, 6, E], [7, E, E]]
                             attention_mask  [[1, 1, 1], [1, 1, 0]]
                             labels          [[-100, 6, E], [-100, E, -100]]

        one packed sequence  input_ids       [[5, 6, E, 7, E]]
                             attention_mask  [[1, 1, 1, 1, 1]]
                             labels          [[-100, 6, E, -100, E]]
                             rows            [[0, 0, 0, 1, 1]]
                             label_rows      [[0, 0, 0, 1, 1]]

    Args:
        sequences: The examples of each sequence.
        pad_id: Padding token id.
        weighted: Whether the examples' weights are used; validation and test count every example once.

    Returns:
        ``input_ids`` [B, S], ``attention_mask`` [B, S], ``labels`` [B, S] (causal) or [B, T] (seq2seq), all int64;
        ``rows`` [B, S] and ``label_rows`` (as ``labels``), int64, only if a sequence is packed: the number of each token's
        example within its sequence, -1 for padding; ``weights`` (as ``labels``), float32, only if an example has some;
        ``places``, a list of strings, one for each example; ``layout``, what the host knows about the tensors (``layout_of``).
    """
    ids = [[i for row in pack for i in row.input_ids] for pack in sequences]
    labels = [[i for row in pack for i in row.labels] for pack in sequences]
    padded = _pad(ids, pad_id)
    batch = {
        "input_ids": padded,
        "attention_mask": _mask([len(ids_) for ids_ in ids], padded.shape[1]),
        "labels": _pad(labels, IGNORED),
        "places": [row.place for pack in sequences for row in pack if row.place],
    }
    if any(len(pack) > 1 for pack in sequences):
        batch["rows"] = _pad([_numbers(len(row.input_ids) for row in pack) for pack in sequences], -1)
        batch["label_rows"] = _pad([_numbers(len(row.labels) for row in pack) for pack in sequences], -1)
    if weighted and any(row.weights is not None for pack in sequences for row in pack):
        weights = [[w for row in pack for w in row.weights or [1.0] * len(row.labels)] for pack in sequences]
        batch["weights"] = _pad(weights, 0.0)
    return batch | {"layout": layout_of(batch, sequences)}


def layout_of(batch: dict[str, Any], sequences: Sequence[Sequence[EncodedExample]]) -> dict[str, Any]:
    """What a training step on a GPU would otherwise have to ask the device, and wait for.

    It describes the batch as it was collated; whoever cuts or changes a batch drops it (``without_layout``).

    Args:
        batch: Of ``training_batch``.
        sequences: The examples of each sequence.

    Returns:
        ``supervised`` [N] and ``predicting`` [M], int64, positions in the flattened labels: of the labels that are trained on,
        and of the tokens that predict one, if the label at t + 1 is the target of token t (not the first label of an example);
        ``lengths`` and ``label_lengths``, lists: the tokens of each example of each sequence; ``full``: no padding.
    """
    supervised = batch["labels"] != IGNORED
    follows = supervised.clone()
    follows[:, 0] = False
    if "label_rows" in batch:
        follows[:, 1:] &= batch["label_rows"][:, 1:] == batch["label_rows"][:, :-1]
    lengths = [[len(row.input_ids) for row in pack] for pack in sequences]
    label_lengths = [[len(row.labels) for row in pack] for pack in sequences]
    return {
        "supervised": supervised.flatten().nonzero()[:, 0],
        "predicting": follows.flatten().nonzero()[:, 0] - 1,
        "lengths": lengths,
        "label_lengths": label_lengths,
        "full": all(len({*map(sum, each)}) == 1 for each in (lengths, label_lengths)),
    }


def without_layout(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch whose tensors are about to change."""
    return {name: value for name, value in batch.items() if name != "layout"}


def _numbers(lengths: Iterable[int]) -> list[int]:
    return [number for number, length in enumerate(lengths) for _ in range(length)]


def generation_batch(prompts: Sequence[Sequence[int]], pad_id: int, *, pad_left: bool) -> dict[str, torch.Tensor]:
    """Collate prompts: left padding for a causal model (it continues at the right end), right padding for an encoder.

    Returns:
        ``input_ids`` [B, S] and ``attention_mask`` [B, S], int64.
    """
    ids = _pad(prompts, pad_id, left=pad_left)
    return {"input_ids": ids, "attention_mask": _mask([len(ids_) for ids_ in prompts], ids.shape[1], left=pad_left)}


def _pad(rows: Sequence[Sequence[float]], value: float, *, left: bool = False) -> torch.Tensor:
    width = max(map(len, rows))
    filled = [
        [value] * (width - len(row)) * left + list(row) + [value] * (width - len(row)) * (not left) for row in rows
    ]
    return torch.tensor(filled, dtype=torch.float32 if isinstance(value, float) else torch.long)


def _mask(lengths: Sequence[int], width: int, *, left: bool = False) -> torch.Tensor:
    positions = torch.arange(width).expand(len(lengths), width)
    sizes = torch.tensor(lengths)[:, None]
    return ((positions >= width - sizes) if left else (positions < sizes)).long()
