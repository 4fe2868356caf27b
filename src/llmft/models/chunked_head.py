"""Cross-entropy from the input of the LM head, in chunks of positions, so that the logits of all are never held.

Shapes: N supervised labels, D hidden dimensions, V the vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.models.loss import Positions, token_count

# Positions whose logits are held at once: 50 MiB with a vocabulary of 50,000. On a CPU more make nothing faster.
CHUNK = 256
# A GPU reads the head, and adds to its gradient, once for each chunk: as many positions as have this many logits there, 256 MiB.
GPU_LOGITS = 2**26
_meta_is = ["cpu"]


def positions_at_once(device: str, vocabulary: int) -> int:
    """How many positions the head's loss is computed for at once, on a type of device; a multiple of ``CHUNK``."""
    device = _meta_is[-1] if device == "meta" else device
    return CHUNK if device != "cuda" else max(1, GPU_LOGITS // vocabulary // CHUNK) * CHUNK


@contextmanager
def meta_stands_for(device: str) -> Iterator[None]:
    """The meta device stands for this type of device, for an estimate."""
    _meta_is.append(device)
    try:
        yield
    finally:
        _meta_is.pop()


class CapturedHidden:
    """The input of an LM head: ``hidden``, [N, D]."""

    hidden: Tensor


@contextmanager
def capture_hidden(model: Any) -> Iterator[CapturedHidden]:
    """Capture the hidden states that go into the LM head, and apply the head to the first of them only."""
    seen = CapturedHidden()

    def capture(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.hidden = inputs[0]
        return (inputs[0][:1], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(capture)
    try:
        yield seen
    finally:
        hook.remove()


def head_bias(model: Any, head: torch.nn.Linear) -> Tensor | None:
    """The bias of the logits, [V]: that of the head, or BART's ``final_logits_bias``, a buffer that is added after it."""
    added = getattr(model, "final_logits_bias", None)
    if not isinstance(added, Tensor):
        return head.bias
    added = added.flatten().to(head.weight.device)
    return added if head.bias is None else head.bias + added


def same_logits(logits: Tensor, of_head: Tensor) -> bool:
    """Whether a model's logits [N, V] are the output of its head, to 1e-2; NaN equals NaN, and infinity itself.

    In half precision a bias that is added after the head is rounded apart from the product, which it may cancel, so a
    difference is compared with the largest logit.
    """
    given, expected = logits.float(), of_head.float()
    small = 1e-3 if of_head.dtype == torch.float32 else 1e-2 * expected.nan_to_num(posinf=0, neginf=0).abs().amax()
    close = (given - expected).abs() <= small + 1e-2 * expected.abs()
    return bool((close | (given == expected) | (given.isnan() & expected.isnan())).all())


class HeadInput(NamedTuple):
    """What the losses are computed from in chunks.

    Attributes:
        parts: Hidden states [N, D] and the head's weight [V, D] and bias [V] or None.
        targets: [N], the ids to predict.
        chosen: The supervised positions.
    """

    parts: tuple[Tensor, Tensor, Tensor | None]
    targets: Tensor
    chosen: Positions


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Cross-entropy of each token in nats, [N], float32, without gradient; arguments as of ``chunked_cross_entropy_sum``."""
    size = positions_at_once(hidden.device.type, len(weight))
    losses = [
        torch.nn.functional.cross_entropy(
            torch.nn.functional.linear(states, weight, bias).float(), labels, reduction="none"
        )
        for states, labels in zip(hidden.to(weight.dtype).split(size), targets.split(size), strict=True)
    ]
    return torch.cat(losses)


def chunked_cross_entropy_sum(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Fused linear cross-entropy, summed over tokens; never holds the logits of more than ``positions_at_once``.

    The gradient is computed in the forward pass, chunk by chunk, from the same softmax; the numbers are those of
    ``token_loss_sum(linear(hidden, weight, bias), targets)``. ``torch.nn.functional.linear_cross_entropy`` does the same from
    torch 2.13 on, but returns the sum in bfloat16 for bfloat16 weights (three digits), and is slower with them.

    Args:
        hidden: [N, D].
        weight: Of the head, [V, D].
        bias: Of the head, [V], or None.
        targets: [N], the ids to predict.
        weights: [N], of each token's loss; None for 1.

    Returns:
        As ``token_loss_sum``.
    """
    parts = (hidden, weight, bias)
    if not torch.is_grad_enabled():  # needs_input_grad of an autograd function does not depend on it
        parts = tuple(part if part is None else part.detach() for part in parts)
    total: Any = _HeadLoss.apply(*parts, targets, weights)
    return total, token_count(targets, weights)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, weights: Tensor | None
    ) -> Tensor:
        """Sum in nats, float32 scalar."""
        device = hidden.device.type
        size = positions_at_once(device, len(weight))
        autocast = not hidden.is_meta and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else weight.dtype
        cast_weight, cast_bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        needed = ctx.needs_input_grad
        hidden_grad = torch.empty_like(hidden) if needed[0] else None
        weight_grad = torch.zeros_like(weight) if needed[1] else None
        bias_grad = torch.zeros_like(bias) if bias is not None and needed[2] else None
        total = torch.zeros((), device=hidden.device)
        with torch.autocast(device, enabled=False) if autocast else nullcontext():
            for start in range(0, len(hidden), size):
                chunk, labels = slice(start, start + size), targets[start : start + size, None]
                states = hidden[chunk].to(dtype)
                log_p = torch.nn.functional.linear(states, cast_weight, cast_bias).float().log_softmax(-1)
                each = 1.0 if weights is None else weights[chunk, None]
                total -= (log_p.gather(1, labels) * each).sum()
                if not any(needed):
                    continue
                grad = log_p.exp_().scatter_add_(1, labels, labels.new_full(labels.shape, -1, dtype=log_p.dtype))
                grad = (grad if weights is None else grad.mul_(each)).to(dtype)
                if hidden_grad is not None:
                    hidden_grad[chunk] = (grad @ cast_weight).to(hidden_grad.dtype)
                if weight_grad is not None:
                    weight_grad += (grad.T @ states).to(weight_grad.dtype)
                if bias_grad is not None:
                    bias_grad += grad.sum(0)
        ctx.save_for_backward(*(hidden_grad, weight_grad, bias_grad))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """The gradients of the forward pass, times that of the sum."""
        return *(None if g is None else _times(g, grads[0]) for g in ctx.saved_tensors), None, None


def _times(gradient: Tensor, factor: Tensor) -> Tensor:
    """A gradient times a scalar; under float16, the scalar is a loss scale that float16 may not hold."""
    if gradient.dtype == torch.float16:
        return (gradient.float() * factor).to(gradient.dtype)
    return gradient * factor.to(gradient.dtype)
