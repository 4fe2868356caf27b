"""A batch as one flat sequence, from lengths that are known on the host: unpadding without waiting for the device.

``packing.unpad`` does the same from masks, which a CUDA device would have to send to the host first.

Shapes: B sequences of S tokens and T labels; N examples, n tokens in all of them.
"""

from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.data.batching.collate import without_layout
from llmft.models.attention.packing import Lengths
from llmft.utils.device import sent

LENGTHS = ("lengths", "label_lengths")
POSITIONS = ("supervised", "predicting")


class ExampleLengths(NamedTuple):
    """Lengths of the examples of a flat sequence, as variable-length kernels take them.

    Attributes:
        offsets: [N + 1], int32: where each example starts, and the end of the last one (``cu_seq_lens``).
        longest: Tokens of the longest example.
    """

    offsets: Tensor
    longest: int


class FlatLengths(NamedTuple):
    """Lengths of the labels' side (of a causal model: its only side), and of the encoder's side."""

    targets: ExampleLengths
    sources: ExampleLengths


class Side(NamedTuple):
    """One side of a flat batch.

    Attributes:
        lengths: Of its examples.
        tokens: [n], place of each token in the padded batch [B * S].
        rows: [1, n], number of the example of each token.
        positions: [1, n], its position in the example.
        skipped: [N], padding before each sequence of the batch (the first B of them).
        width: S, or T.
    """

    lengths: ExampleLengths
    tokens: Tensor
    rows: Tensor
    positions: Tensor
    skipped: Tensor
    width: int

    def taken(self, values: Tensor) -> Tensor:
        """The values [B, S] in the order of the flat sequence, [1, n]."""
        return values.flatten().index_select(0, self.tokens)[None]

    def moved(self, places: Tensor) -> Tensor:
        """Positions in the padded batch, [M], as positions in the flat sequence."""
        return places - self.skipped[places // self.width]


def flatten(batch: dict[str, Any], layout: dict[str, Any]) -> dict[str, Any]:
    """One flat sequence of all examples, in order, on the device of the batch.

    Args:
        batch: As ``collate.training_batch`` makes it, packed or not.
        layout: Of the batch (``collate.layout_of``), or its lengths alone.

    Returns:
        The same keys, [1, n]; ``rows`` and ``label_rows`` number the examples of the whole batch, ``positions`` are position
        ids, ``flat`` are ``FlatLengths``. ``layout`` has the positions with a loss, unless the labels were changed.
    """
    sources, targets = _sides(batch, layout)
    flat = {
        "input_ids": sources.taken(batch["input_ids"]),
        "labels": targets.taken(batch["labels"]),
        "rows": sources.rows,
        "label_rows": targets.rows,
        "positions": sources.positions,
        "flat": FlatLengths(targets.lengths, sources.lengths),
    }
    flat["attention_mask"] = torch.ones_like(flat["input_ids"])
    if "weights" in batch:
        flat["weights"] = targets.taken(batch["weights"])
    unchanged = batch["labels"].is_inference() or not batch["labels"]._version
    if unchanged and all(name in layout for name in POSITIONS):
        flat["layout"] = {name: targets.moved(layout[name]) for name in POSITIONS}
    return {**without_layout(batch), **flat}


def _sides(batch: dict[str, Any], layout: dict[str, Any]) -> tuple[Side, Side]:
    sizes, label_sizes = (layout[name] for name in LENGTHS)
    sources = _side(sizes, batch["input_ids"])
    same = sizes == label_sizes and batch["input_ids"].shape == batch["labels"].shape
    return sources, sources if same else _side(label_sizes, batch["labels"])


def _side(sizes: Lengths, padded: Tensor) -> Side:
    each, width, device = [size for sequence in sizes for size in sequence], padded.shape[1], padded.device
    number, ends = len(each), list(accumulate(each))
    starts = [n * width + before for n, sequence in enumerate(sizes) for before in accumulate(sequence[:-1], initial=0)]
    before = [0, *accumulate(map(sum, sizes))]
    skipped = [n * width - before[n] for n in range(len(sizes))]
    table = [[0, *ends], [*starts, 0], [*each, 0], [*skipped, *[0] * (number + 1 - len(sizes))]]
    # one small copy to the device; what follows is computed there
    offsets, places, counts, skipped = sent(torch.tensor(table, dtype=torch.int32), device)
    rows = torch.repeat_interleave(torch.arange(number, device=device), counts[:-1], output_size=ends[-1])
    positions = torch.arange(ends[-1], device=device) - offsets[rows]
    # a view's table would be a condition of compiled layers, too
    lengths = ExampleLengths(offsets.clone(), max(each))
    return Side(lengths, places[rows] + positions, rows[None], positions[None], skipped[:-1], width)
