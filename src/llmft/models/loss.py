"""Model and labels -> the sum of the token losses and their number, with the head computed where it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from llmft.data.tokenization.codec import IGNORED

# Positions whose logits are held at once: with a vocabulary of 50,000 that are 50 MiB. More make nothing faster.
CHUNK = 256


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

    # before the hook of ``head_left_out``, whichever was there first
    hook = model.get_output_embeddings().register_forward_pre_hook(choose, prepend=True)
    try:
        yield
    finally:
        hook.remove()


class LeftOut:
    """What a head that was left out would have seen: ``hidden``, [N, D]."""

    hidden: Tensor


@contextmanager
def capture_hidden(model: Any) -> Iterator[LeftOut]:
    """Keep what goes into the model's head, and let the head see the first line of it alone."""
    seen = LeftOut()

    def take(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.hidden = inputs[0]
        return (inputs[0][:1], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        yield seen
    finally:
        hook.remove()


def chunked_cross_entropy_sum(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """The sum of token losses, from what goes into the head; the logits of ``CHUNK`` positions at most are held at a time.

    The gradient is worked out beside the loss, chunk by chunk, from the softmax that is there anyway; the numbers are those
    of ``token_loss_sum(linear(hidden, weight, bias), targets)``. ``torch.nn.functional.linear_cross_entropy`` does the same
    from torch 2.13 on, but returns the sum in bfloat16 for bfloat16 weights (three digits), and is slower with them.

    Args:
        hidden: [N, D].
        weight: Of the head, [V, D].
        bias: Of the head, [V], or None.
        targets: [N], the ids that are predicted.

    Returns:
        As ``token_loss_sum``.
    """
    parts = (hidden, weight, bias)
    if not torch.is_grad_enabled():  # an autograd function does not see that by itself
        parts = tuple(part if part is None else part.detach() for part in parts)
    total: Any = _HeadLoss.apply(*parts, targets)
    return total, torch.tensor(targets.numel(), device=targets.device)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        """Sum in nats, float32 scalar."""
        device = hidden.device.type
        mixed = not hidden.is_meta and torch.is_autocast_enabled(device)
        kind = torch.get_autocast_dtype(device) if mixed else weight.dtype
        wide = weight.to(kind)
        wanted = ctx.needs_input_grad
        into = torch.empty_like(hidden) if wanted[0] else None
        weights = torch.zeros_like(weight) if wanted[1] else None
        biases = torch.zeros_like(bias) if bias is not None and wanted[2] else None
        total = torch.zeros((), device=hidden.device)
        with torch.autocast(device, enabled=False) if mixed else nullcontext():
            for start in range(0, len(hidden), CHUNK):
                part, labels = slice(start, start + CHUNK), targets[start : start + CHUNK, None]
                rows = hidden[part].to(kind)
                log_p = torch.nn.functional.linear(rows, wide, None if bias is None else bias.to(kind)).float()
                log_p = log_p.log_softmax(-1)
                total -= log_p.gather(1, labels).sum()
                if not any(wanted):
                    continue
                slope = log_p.exp_().scatter_add_(1, labels, labels.new_full(labels.shape, -1, dtype=log_p.dtype))
                slope = slope.to(kind)
                if into is not None:
                    into[part] = (slope @ wide).to(into.dtype)
                if weights is not None:
                    weights += (slope.T @ rows).to(weights.dtype)
                if biases is not None:
                    biases += slope.sum(0)
        ctx.save_for_backward(*(into, weights, biases))
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        """The gradients, times that of the sum."""
        return *(None if g is None else g * slopes[0].to(g.dtype) for g in ctx.saved_tensors), None


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
