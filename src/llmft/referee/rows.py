"""The examples in a training batch, without padding and without packing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

IGNORED = -100


@dataclass(frozen=True)
class TrainedRow:
    """An example as the training has it in a batch.

    Attributes:
        place: Its file and line.
        input_ids: Without padding.
        labels: As long as ``input_ids`` (causal), or the target (seq2seq); -100 where nothing is trained.
        weights: Of each label's loss; None if each counts once.
    """

    place: str
    input_ids: list[int]
    labels: list[int]
    weights: list[float] | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells one example of an epoch from another; a conversation may give several examples of one place."""
        return self.place, tuple(self.input_ids), tuple(self.labels)


def rows_of(batch: Mapping[str, Any], *, causal: bool) -> list[TrainedRow]:
    """The examples of a batch, packed or not.

    Args:
        batch: ``input_ids`` [B, S], ``attention_mask`` [B, S], ``labels`` [B, S] (causal) or [B, T] (seq2seq), ``places``; of a
            packed batch ``rows`` and ``label_rows``: the number of each token's example, -1 for padding; optionally ``weights``.
        causal: Whether labels are aligned with the ids.
    """
    places = iter(batch["places"])
    plain = {name: value.tolist() for name, value in batch.items() if hasattr(value, "tolist")}
    return [
        TrainedRow(next(places, ""), *_example(plain, sequence, number, causal=causal))
        for sequence in range(len(plain["input_ids"]))
        for number in _numbers(plain, sequence)
    ]


def _numbers(batch: dict[str, Any], sequence: int) -> Iterator[int]:
    yield from range(max(batch["rows"][sequence]) + 1) if "rows" in batch else (0,)


def _example(batch: dict[str, Any], sequence: int, number: int, *, causal: bool) -> tuple[Any, Any, Any]:
    ids, labels = batch["input_ids"][sequence], batch["labels"][sequence]
    if "rows" in batch:
        tokens = [n == number for n in batch["rows"][sequence]]
        targets = [n == number for n in batch["label_rows"][sequence]]
    else:
        tokens = [bool(kept) for kept in batch["attention_mask"][sequence]]
        # padding of a target is at its end; a label inside it may be ignored too
        last = max((n for n, label in enumerate(labels) if label != IGNORED), default=0)
        targets = tokens if causal else [n <= last for n in range(len(labels))]
    weights = (
        [w for w, kept in zip(batch["weights"][sequence], targets, strict=True) if kept] if "weights" in batch else None
    )
    return (
        [i for i, kept in zip(ids, tokens, strict=True) if kept],
        [i for i, kept in zip(labels, targets, strict=True) if kept],
        weights,
    )
