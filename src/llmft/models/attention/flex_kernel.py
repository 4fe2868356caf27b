"""torch's flex attention, compiled for the GPU by Triton, and its comparison with a plain softmax.

Shapes: n query tokens, m key tokens, H heads, D head dimensions.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.models.attention.key_ranges import block_mask, key_ranges

log = logging.getLogger(__name__)

# Tokens of the comparison, of which 100 are an example and the others another one: blocks of no score, some and all of them.
COMPARED = 512, 100
# The largest difference, relative to the norm: TF32 and bfloat16 stay below, another mask does not.
TOLERANCE = 2e-2
COMPILATIONS = 32  # torch allows 8


class Scores(NamedTuple):
    """What becomes of the products of queries and keys: the scale (None: one over the root of the head size), and a soft cap."""

    scale: float | None
    cap: float | None


_compared: set[Any] = set()


def attend(heads: Sequence[Tensor], mask: Any, scores: Scores) -> Tensor:
    """Query [1, H, n, D], key and value [1, H or fewer, m, D], to [1, H, n, D]."""
    query, key, value = heads
    named = {"score_mod": _capped(scores.cap), "block_mask": mask, "scale": scores.scale}
    return _flex_attention()(query, key, value, enable_gqa=query.shape[1] != key.shape[1], **named)


@cache
def _capped(cap: float | None) -> Any:
    """Gemma 2's soft cap; one function for each, or each call would be compiled."""
    if cap is None:
        return None

    def capped(score: Tensor, _batch: Tensor, _head: Tensor, _query: Tensor, _key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


@cache
def _flex_attention() -> Any:
    """Compiled, as it would hold all scores otherwise.

    Lengths become dynamic with the second batch. With ``dynamic=True`` a soft cap would too, and torch cannot compile that.
    With ``fullgraph`` too many compilations are an error, and no such slow computation.
    """
    import torch._dynamo
    from torch.nn.attention.flex_attention import flex_attention

    # steps, validation and answers, in one dtype and another, each with static and dynamic lengths
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILATIONS)
    log.info("flex attention: compiled in the first steps, which takes a while")
    return torch.compile(flex_attention, fullgraph=True)


def compare(heads: Sequence[Tensor], scores: Scores) -> None:
    """Compare the kernel's output and gradients with those of a plain softmax, once for each kind of heads on a device.

    Args:
        heads: Query [1, H, n, D], key and value [1, H or fewer, m, D].
        scores: What the kernel computes besides.

    Raises:
        RuntimeError: They differ, or the kernel or its backward pass cannot be compiled.
    """
    kind = (*((x.shape[1], x.shape[3]) for x in heads), heads[0].dtype, heads[0].device, scores)
    if kind in _compared:
        return
    tokens, example = COMPARED
    at = torch.arange(tokens, device=heads[0].device)
    keys = key_ranges(
        [torch.tensor([0, example, tokens], dtype=torch.int32, device=at.device)] * 2, tokens, tokens, causal=True
    )
    seen = (keys.first[:, None] <= at) & (at <= keys.last[:, None])
    with torch.inference_mode(False), torch.enable_grad():
        given = [x.detach().index_select(2, at % x.shape[2]).requires_grad_() for x in heads]
        found = _with_gradients(given, attend(given, block_mask(keys), scores))
        expected = _with_gradients(given, _plain(given, seen, scores))
    for a, b, name in zip(found, expected, ("output", "gradient of queries", "of keys", "of values"), strict=True):
        difference = float((a.float() - b.float()).norm() / b.float().norm().clamp_min(1e-12))
        if not difference <= TOLERANCE and bool(
            b.isfinite().all()
        ):  # else the model is broken, and another check says so
            raise RuntimeError(f"flex attention: {name} differs by {difference:.2g} from a plain softmax")
    _compared.add(kind)


def _with_gradients(heads: Sequence[Tensor], out: Tensor) -> list[Tensor]:
    weights = torch.arange(out.numel(), device=out.device).view_as(out).cos().to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), heads)]


def _plain(heads: Sequence[Tensor], seen: Tensor, scores: Scores) -> Tensor:
    query, key, value = (x.float() for x in heads)
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    products = query @ key.transpose(2, 3) * (scores.scale or query.shape[-1] ** -0.5)
    if scores.cap is not None:
        products = scores.cap * torch.tanh(products / scores.cap)
    return products.masked_fill(~seen, -torch.inf).softmax(-1) @ value


class Outline(torch.autograd.Function):
    """What the kernel holds for its backward pass, on the meta device of an estimate."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query [1, H, n, D], key and value [1, H or fewer, m, D], to [1, H, n, D]."""
        batch, heads, tokens, _ = query.shape
        out = query.new_empty(batch, tokens, heads, value.shape[3]).transpose(1, 2)  # in memory as the queries are
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Gradients of query, key and value."""
        return tuple(map(torch.empty_like, ctx.saved_tensors[:3]))
