"""Model and labels -> the sum of the token losses and their number, with the head computed where it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from llmft.encoding import IGNORED


def token_loss_sum(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over tokens; sums, because means of batches cannot be averaged.

    Args:
        logits: [N, V].
        targets: [N], the ids that the logits predict.

    Returns:
        The sum in nats, float32 scalar with gradient, and the number of tokens N, int64 scalar.
    """
    total = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    return total, torch.tensor(targets.numel(), device=targets.device)


def supervised(targets: Tensor) -> Tensor:
    """Where there is something to learn: [B, T], bool."""
    return targets != IGNORED


@contextmanager
def head_on(model: Any, chosen: Tensor) -> Iterator[None]:
    """Make the model's head see the chosen positions alone, so that its logits are [N, V] instead of [B, T, V].

    The head is the widest matrix of a small model, and most positions (prompt, padding) have no label; leaving them out
    changes no loss and no gradient.

    Args:
        model: A transformers or peft model.
        chosen: [B, T], bool; logits come in its row-major order.
    """

    def choose(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][chosen], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        hook.remove()


def divergence_sum(logits: Tensor, told: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of a model's predictions from its teacher's, summed over tokens, times temperature squared.

    The square keeps the gradient's size whatever the temperature (Hinton et al. 2015, section 2).

    Args:
        logits: Of the model that learns, [N, V].
        told: Of its teacher, [N, W]. Where V and W differ, one of them has rows that no token uses; they are left out.
        temperature: Both are divided by it.

    Returns:
        Nats, float32 scalar with gradient to ``logits``.
    """
    width = min(logits.shape[-1], told.shape[-1])
    ours, theirs = ((x[:, :width].float() / temperature).log_softmax(-1) for x in (logits, told))
    return temperature**2 * torch.nn.functional.kl_div(ours, theirs, reduction="sum", log_target=True)
