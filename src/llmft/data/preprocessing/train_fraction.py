"""``data.train_fraction``: a part of the training examples, for learning curves."""

import numpy as np

from llmft.data.preprocessing.split import mixed


def nested_subset(rows: np.ndarray, owners: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The training rows of a fraction of the examples, chosen by identity: a smaller fraction is part of a larger one.

    Args:
        rows: The row numbers of train, in ascending order.
        owners: The number of each row's example, of all rows.
        groups: Hash of each example's group, of all examples, as ``split_by_identity`` takes them; 0 for none.
        fraction: Of the examples, above 0; a group is never divided, so that equal prompts are all in or all out.
        seed: Seed of the order.

    Returns:
        The chosen row numbers, at least those of one group.
    """
    if fraction >= 1 or not len(rows):
        return rows
    examples = np.unique(owners[rows])
    names = np.where(groups[examples] == 0, examples + 1, groups[examples])
    unique, numbers, sizes = np.unique(names, return_inverse=True, return_counts=True)
    order = np.argsort(mixed(unique, seed), kind="stable")
    # no later group fills what the next one is too large for: then a smaller fraction would not be part of a larger one
    taken = max(1, int(np.searchsorted(np.cumsum(sizes[order]), round(fraction * len(examples)), side="right")))
    chosen = np.zeros(len(unique), bool)
    chosen[order[:taken]] = True
    return rows[np.isin(owners[rows], examples[chosen[numbers]])]


def repeated(rows: np.ndarray, length: int) -> np.ndarray:
    """The rows over and over, up to an epoch's length; so training on a fraction has as many steps as on all examples."""
    return np.resize(rows, length) if len(rows) < length else rows
