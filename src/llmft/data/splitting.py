"""Encoded rows -> train, test and val."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch

from llmft.errors import UserError

T = TypeVar("T")


def deal(rows: Sequence[T], split: Mapping[str, float | None], split_by: str, seed: int) -> dict[str, list[T]]:
    """Deal rows out: train first, then test, then val.

    Args:
        rows: In the order of the file.
        split: Shares of ``train``, ``test`` and ``val``; a share above 0 is at least one row, ``train`` None takes the rest.
        split_by: ``shuffle`` (by a permutation of ``seed``) or ``position``.
        seed: Of the permutation.

    Raises:
        UserError: Nothing is left to train on.
    """
    order = list(range(len(rows)))
    if split_by == "shuffle":
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    sizes = {name: _size(len(rows), split[name]) for name in ("test", "val")}
    rest = len(rows) - sum(sizes.values())
    train = rest if split["train"] is None else min(rest, _size(len(rows), split["train"]))
    if train < 1:
        raise UserError(f"data.split={dict(split)}: {len(rows)} rows leave none to train on; lower val and test")
    dealt = iter(order)
    return {name: [rows[next(dealt)] for _ in range(size)] for name, size in {"train": train, **sizes}.items()}


def _size(rows: int, share: float | None) -> int:
    return max(1, round(rows * share)) if share else 0
