"""How many examples there are -> which of them are train, test and val."""

from collections.abc import Mapping

import numpy as np
import torch

from llmft.errors import UserError


def deal(rows: int, split: Mapping[str, float | None], split_by: str, seed: int) -> dict[str, np.ndarray]:
    """Deal rows out: train first, then test, then val.

    Args:
        rows: How many there are, in the order of the file.
        split: Shares of ``train``, ``test`` and ``val``; a share above 0 is at least one row, ``train`` None takes the rest.
        split_by: ``shuffle`` (by a permutation of ``seed``) or ``position``.
        seed: Of the permutation.

    Returns:
        The numbers of the rows of each split.

    Raises:
        UserError: Nothing is left to train on.
    """
    order = np.arange(rows)
    if split_by == "shuffle":
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).numpy()
    test, val = (_size(rows, split[name]) for name in ("test", "val"))
    rest = rows - test - val
    train = rest if split["train"] is None else min(rest, _size(rows, split["train"]))
    if train < 1:
        raise UserError(f"data.split={dict(split)}: {rows} rows leave none to train on; lower val and test")
    return {
        "train": order[:train],
        "test": order[train : train + test],
        "val": order[train + test : train + test + val],
    }


def _size(rows: int, share: float | None) -> int:
    return max(1, round(rows * share)) if share else 0


def spread(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The numbers of the rows of groups: ``starts`` [4, 0] with ``sizes`` [2, 3] are 4, 5, 0, 1, 2."""
    ends = np.cumsum(sizes)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
    return np.repeat(starts, sizes) + within
