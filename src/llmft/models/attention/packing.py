"""Packed sequences: positions, block masks, unpadding, and the check that examples do not attend to each other.

Shapes: B sequences in a batch, S tokens in a sequence (of the encoder), T labels in a sequence (for a causal model T = S).
``rows`` [B, S] and ``label_rows`` [B, T] are segment ids: the index, within its sequence, of the example that a token
belongs to; -1 for padding.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.data.batching.collate import without_layout
from llmft.utils.device import running_autocast
from llmft.utils.modules import eval_mode

# The share of real tokens above which unpadding a batch saves nothing (docs/performance.md).
FULL = 0.95
# Largest difference of packed and single logits, relative to the largest logit. Measured: 4e-7 to 1e-5 in float32 when
# examples are kept apart; 0.07 to 0.6 (times the size of small logits) when one attends to another.
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3}
HALF_TOLERANCE = 5e-2

Lengths = list[list[int]]


def positions_in_rows(rows: Tensor) -> Tensor:
    """Position ids that restart at 0 in each example of a packed sequence.

    Args:
        rows: [B, S], segment ids; padding counts as an example of its own.

    Returns:
        [B, S], int64.
    """
    index = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    return index - torch.where(row_starts(rows), index, 0).cummax(dim=1).values


def row_starts(rows: Tensor) -> Tensor:
    """Whether a token is the first of its example: [B, S], bool."""
    starts = torch.ones_like(rows, dtype=torch.bool)
    starts[:, 1:] = rows[:, 1:] != rows[:, :-1]
    return starts


def lengths(rows: Tensor) -> Lengths:
    """Tokens of each example of each sequence; padding counts as an example.

    Args:
        rows: [B, S], segment ids.
    """
    edges = [[*starts.nonzero()[:, 0].tolist(), rows.shape[1]] for starts in row_starts(rows)]
    return [[end - start for start, end in pairwise(sequence)] for sequence in edges]


def block_mask(queries: Tensor, keys: Tensor, dtype: torch.dtype, *, causal: bool = False) -> Tensor:
    """Additive block-diagonal attention mask: a token attends to its own example only.

    Float and not bool, because eager attention adds its mask to the scores.

    Args:
        queries: [B, T], segment ids; padding attends to padding.
        keys: [B, S], segment ids.
        dtype: Of the scores.
        causal: Whether a token attends to no later token (T = S).

    Returns:
        [B, 1, T, S], 0 or the smallest number of ``dtype``.
    """
    seen = queries[:, :, None] == keys[:, None, :]
    if causal:
        seen = seen & torch.ones_like(seen[0]).tril()
    # padding of one side, if the other has none, must attend to something: a softmax over nothing is NaN
    seen = seen | ~seen.any(dim=-1, keepdim=True)
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def unpad(batch: dict[str, Any], kept: Tensor, targets: Tensor) -> dict[str, Any]:
    """Unpad a batch into one flat sequence (padding-free), examples in order.

    Args:
        batch: As ``collate.training_batch`` makes it, packed or not.
        kept: [B, S], bool: tokens that are not padding.
        targets: [B, T], bool: labels that are not padding.

    Returns:
        The same keys, [1, tokens], without ``layout``; ``rows`` and ``label_rows`` number the examples of the whole batch.
    """
    offsets = torch.arange(len(kept), device=kept.device)[:, None] * (kept.shape[1] + targets.shape[1])
    rows = (offsets + batch.get("rows", 0)).expand_as(kept)
    label_rows = (offsets + batch.get("label_rows", 0)).expand_as(targets)
    flat = {name: batch[name][kept][None] for name in ("input_ids", "attention_mask")}
    flat |= {
        "labels": batch["labels"][targets][None],
        "rows": rows[kept][None],
        "label_rows": label_rows[targets][None],
    }
    if "weights" in batch:
        flat["weights"] = batch["weights"][targets][None]
    return {**without_layout(batch), **flat}


def is_full(*masks: Tensor) -> bool:
    """Whether a batch has so little padding that unpadding it saves nothing.

    Args:
        masks: [B, S] and [B, T], bool: tokens and labels that are not padding.
    """
    return sum(int(mask.sum()) for mask in masks) > FULL * sum(mask.numel() for mask in masks)


class LogitDifference(NamedTuple):
    """How much two sets of logits differ.

    Attributes:
        value: The largest difference, relative to the largest logit; infinite if the first set is NaN or infinite where the
            second one is not.
        tolerance: Maximum difference due to rounding, for the dtype that the logits were computed in.
        finite: Whether the second set is finite, except for infinities that both have (a masked vocabulary); if not, the
            model is broken, and ``value`` is meaningless.
    """

    value: float
    tolerance: float
    finite: bool

    @property
    def is_small(self) -> bool:
        """Whether the logits are the same up to rounding."""
        return self.value <= self.tolerance


@torch.no_grad()
def logit_difference(
    model: Any, logits: Callable[[Any], Tensor], first: Sequence[Any], second: Sequence[Any]
) -> LogitDifference:
    """Compare the logits of the same supervised tokens, batched in two ways, in eval mode.

    Args:
        model: A torch module; its train and eval modes are restored.
        logits: Maps a batch to logits [N, V].
        first: Batches, one way.
        second: Batches of the same examples, the other way.
    """
    with eval_mode(model):
        found, expected = (torch.cat([logits(batch) for batch in batches]) for batches in (first, second))
    equal = found == expected  # infinities too; NaN equals nothing
    differences = torch.where(equal, 0.0, (found - expected).abs()).nan_to_num(nan=torch.inf, posinf=torch.inf)
    largest = torch.where(expected.isfinite(), expected.abs(), 0.0).max().clamp_min(torch.finfo(found.dtype).tiny)
    finite = bool((equal | expected.isfinite()).all())
    # a model may return float32 logits that were computed in half precision
    dtypes = {found.dtype, getattr(model, "dtype", found.dtype), running_autocast(found.device.type) or found.dtype}
    tolerance = max(TOLERANCE.get(dtype, HALF_TOLERANCE) for dtype in dtypes)
    return LogitDifference(float(differences.max() / largest), tolerance, finite)
