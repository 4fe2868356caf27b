"""Token losses as sums: cross-entropy over all logits, and the divergence from a teacher.

Shapes: B sequences of T labels, N of them supervised, V the vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmft.data.tokenization.codec import IGNORED
from llmft.utils.device import float64, floats
from llmft.utils.errors import UserError


class TokenLoss:
    """Running sum of token losses: nats and (weighted) tokens, divided once at the end.

    The sums stay on the device of what is added; only ``mean`` waits for it.
    """

    def __init__(self) -> None:
        self.nats = torch.zeros((), dtype=torch.float64)
        self.tokens = torch.zeros((), dtype=torch.float64)  # float64 counts exactly up to 2**53

    def add(self, nats: Tensor, tokens: Tensor) -> None:
        """Add a batch: scalars on any device."""
        # not in place: a sum that starts on the CPU moves to the device of the first batch
        self.nats = self.nats + float64(nats.detach())
        self.tokens = self.tokens + float64(tokens)

    def totals(self, strategy: Any) -> tuple[Tensor, Tensor]:
        """Nats and tokens over all ranks, float64 scalars."""
        if getattr(strategy, "world_size", 1) == 1:
            return self.nats, self.tokens
        both = [part.to(strategy.root_device, non_blocking=True) for part in (self.nats, self.tokens)]
        nats, tokens = strategy.reduce(torch.stack(both), reduce_op="sum")
        return nats, tokens

    def mean(self, strategy: Any) -> tuple[float, float]:
        """Nats per token, and tokens, over all ranks, as ``mean_of``."""
        return mean_of(*floats(*self.totals(strategy)))


def mean_of(nats: float, tokens: float) -> tuple[float, float]:
    """Nats per token (0 tokens: a mean of 0), and tokens; without weights, tokens are an int."""
    return nats / (tokens or 1), int(tokens) if tokens.is_integer() else tokens


@dataclass(frozen=True)
class Positions:
    """Positions of a batch whose tokens have a loss.

    Attributes:
        index: [N], int64, ascending: in the flattened batch.
        shape: (B, T), of the batch.
    """

    index: Tensor
    shape: Sequence[int]

    @classmethod
    def of(cls, mask: Tensor) -> "Positions":
        """The positions of a mask, [B, T], bool; the host waits for the device of the mask."""
        return cls(mask.flatten().nonzero()[:, 0], mask.shape)

    def select(self, values: Tensor) -> Tensor:
        """The values [B, T, ...] at the positions, [N, ...]."""
        # not a mask: its number of positions would have to be asked of the device, in the backward pass too
        # an estimate has its batch on the CPU and its model on the meta device
        return values.flatten(0, 1).index_select(0, self.index.to(values.device))

    def counts(self) -> list[int]:
        """How many positions each sequence has."""
        return torch.bincount(self.index // self.shape[1], minlength=self.shape[0]).tolist()


def token_loss_sum(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over tokens; sums, because means of batches cannot be averaged.

    Args:
        logits: [N, V].
        targets: [N], the ids to predict.
        weights: [N], of each token's loss; None for 1.

    Returns:
        The sum in nats, float32 scalar with gradient, and the number of tokens N, int64 scalar on the CPU; with weights, the sum
        of weight times loss, and the sum of the weights, float32 scalar.
    """
    if weights is None:
        total = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    else:
        total = (torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none") * weights).sum()
    return total, token_count(targets, weights)


def token_count(targets: Tensor, weights: Tensor | None) -> Tensor:
    """What a loss sum is divided by: the number of targets [N] (on the CPU), or the sum of their weights [N]; scalar."""
    return torch.tensor(targets.numel()) if weights is None else weights.sum()


def supervised(targets: Tensor) -> Tensor:
    """Positions with a label that is trained on: [B, T], bool."""
    return targets != IGNORED


@contextmanager
def head_at_positions(model: Any, chosen: Positions) -> Iterator[None]:
    """Apply the LM head at the chosen positions only, so that the logits are [N, V] instead of [B, T, V].

    The head is the widest matrix of a small model, and most positions (prompt, padding) have no label; skipping them
    changes no loss and no gradient.

    Args:
        model: A transformers or peft model.
        chosen: The logits are in their order.

    Raises:
        UserError: The head sees other positions than those of the batch.
    """

    def select(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if (*inputs[0].shape[:-1],) != (*chosen.shape,):  # FSMT's decoder has its batch in the second dimension
            raise UserError("model: its head is not applied to [batch, tokens]; use performance=plain")
        return (chosen.select(inputs[0]), *inputs[1:])

    # before the hook of ``capture_hidden``, whichever was registered first
    hook = model.get_output_embeddings().register_forward_pre_hook(select, prepend=True)
    try:
        yield
    finally:
        hook.remove()


def divergence_sum(logits: Tensor, teacher_logits: Tensor, temperature: float, weights: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of the student from its teacher, summed over tokens, times temperature squared.

    The square makes the size of the gradient independent of the temperature (Hinton et al. 2015, section 2).

    Args:
        logits: Of the student, [N, V].
        teacher_logits: [N, W]. If V and W differ, the wider one is padded with rows that no token uses; they are ignored.
        temperature: Both logits are divided by it.
        weights: [N], of each token's divergence; None for 1.

    Returns:
        Nats, float32 scalar with gradient to ``logits``.
    """
    width = min(logits.shape[-1], teacher_logits.shape[-1])
    student, teacher = ((x[:, :width].float() / temperature).log_softmax(-1) for x in (logits, teacher_logits))
    each = torch.nn.functional.kl_div(student, teacher, reduction="none", log_target=True)
    return temperature**2 * (each if weights is None else each * weights[:, None]).sum()
