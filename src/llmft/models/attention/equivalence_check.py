"""Rows that share a line: the proof, on real ones, that a model computes each as if it were alone."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import EncodedExample
from llmft.models.attention.unpad import in_one_line
from llmft.utils.errors import UserError
from llmft.utils.text import first_line

if TYPE_CHECKING:
    from llmft.models.module import InstructionModule

log = logging.getLogger(__name__)

# Largest difference between packed and single logits, relative to the largest logit. Measured: 4e-7 to 1e-5 in float32
# where rows are kept apart; 0.07 to 0.6 (times the size of small logits) where one sees another.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


@torch.no_grad()
def check_packing(module: "InstructionModule", line: Sequence[EncodedExample], pad_id: int) -> float:
    """Compare the logits of a packed line with those of its rows alone.

    Args:
        module: The module that is about to be trained.
        line: Rows that share a line.
        pad_id: The pad id.

    Returns:
        The largest difference, relative to the largest logit.

    Raises:
        UserError: They differ, so that rows would see each other.
    """
    module.ask_rows(training_batch([[row] for row in line], pad_id))
    packed, *single = [training_batch(rows, pad_id) for rows in ([line], *([[row]] for row in line))]
    difference, tolerance = _difference(module, [packed], single)
    if not difference <= tolerance:
        raise UserError(
            f"data.batching=packed: this model lets packed rows see each other (logits of {line[0].place} and {len(line) - 1} "
            f"more rows differ by {difference:.2g} of the largest, packed against alone); use data.batching=tokens or grouped"
        )
    return difference


@torch.no_grad()
def packing_is_equivalent(module: "InstructionModule", batch: dict[str, Any]) -> bool | None:
    """Whether the first rows of a batch, in one line and each taken by itself, are what they are in lines of their own.

    Args:
        module: The module that is trained or measured.
        batch: Of ``collate.training_batch``; on the CPU.

    Returns:
        None where there is nothing to compare: no token of theirs is supervised.
    """
    first = {name: value[:2] for name, value in batch.items()}
    if not bool((first["labels"] >= 0).any()):
        return None
    before = module.rows_agree
    module.rows_agree = True
    try:
        difference, tolerance = _difference(module, [in_one_line(first, *module.tokens(first))], [first])
    except Exception as error:  # it takes no positions, say, or has no attention but its own
        log.info("padding is kept: this model cannot take rows in one line (%s)", first_line(error))
        return False
    finally:
        module.rows_agree = before
    if not difference <= tolerance:
        log.info("padding is kept: in one line rows see each other (logits differ by %.2g of the largest)", difference)
    return difference <= tolerance


def _difference(module: "InstructionModule", ours: list[Any], theirs: list[Any]) -> tuple[float, float]:
    """The largest difference of two ways to the same logits, relative to the largest of them, and how large it may be."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        found, wanted = (torch.cat([_logits(module, batch) for batch in batches]) for batches in (ours, theirs))
    finally:
        for part, mode in modes:
            part.training = mode
    return float((found - wanted).abs().max() / wanted.abs().max()), TOLERANCE.get(found.dtype, 5e-2)


def _logits(module: "InstructionModule", batch: dict[str, Any]) -> Tensor:
    return module.predict({k: v.to(module.device) if isinstance(v, Tensor) else v for k, v in batch.items()})[0]
