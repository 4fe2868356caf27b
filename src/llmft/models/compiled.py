"""``torch.compile`` of each layer of a model, in training steps: one graph serves all layers of a kind, in any shape of batch.

Compiling layer by layer (regional compilation) leaves what differs from batch to batch outside: the choice of the positions with
a loss, the head, the comparisons of the first batch. A forward is bound to each layer, so names of weights, hooks, adapters and
checkpoints are those without. Validation, evaluation and answers compute no gradient: they run as without it, and compile
nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import cache, partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from llmft.models.fsdp import sharded_layers
from llmft.utils.device import running_autocast

BACKEND: Any = "inductor"
# eager's random numbers: the dropout masks of a seed are those without torch.compile, so that layers can be compared in training
OPTIONS = {"fallback_random": True}
# Norm of a difference, relative to the norm: of a layer's outputs, and of its gradients.
TOLERANCE, HALF_TOLERANCE = 1e-4, 3e-2


def layers_of(model: Any) -> list[nn.Module]:
    """The repeated layers of a transformers or peft model; not those whose forward is another one already."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return [layer for layer in sharded_layers(inner) if "forward" not in vars(layer)]


def kinds_of(layers: Iterable[nn.Module]) -> str:
    """Layers by class, in words: ``30 LlamaDecoderLayer``."""
    return ", ".join(f"{number} {name}" for name, number in Counter(type(layer).__name__ for layer in layers).items())


def install(layers: Iterable[Any]) -> None:
    """Run layers compiled wherever they are trained."""
    for layer in layers:
        layer.forward = MethodType(_forward, layer)  # a bound method is copied with its module


def differences(layers: Sequence[nn.Module], run: Callable[[], Any], dtype: torch.dtype) -> list[float]:
    """Compile layers, and compare outputs and gradients of each with those of its own forward, as it runs in training.

    Args:
        layers: Layers of a model in train mode, with gradients on.
        run: Runs the model; it is left after the last layer.
        dtype: That the model computes in.

    Returns:
        For each layer the difference of its outputs or gradients, whichever is larger, in parts of the tolerance.
    """
    found: list[float] = []
    half = {dtype, running_autocast(next(layers[0].parameters()).device.type)} & {torch.float16, torch.bfloat16}

    def compare(layer: Any, args: Any, kwargs: Any) -> None:
        found.append(_difference(layer, args, kwargs) / (HALF_TOLERANCE if half else TOLERANCE))

    def cut(_: Any, __: Any, output: Any) -> Any:
        if len(found) == len(layers):
            raise _LastLayerError
        return _leaves(output)  # the graph of a layer is freed before the next one is compared

    with _same_random_numbers(layers[0]), ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(compare, with_kwargs=True).remove)
            hooks.callback(layer.register_forward_hook(cut).remove)
        with suppress(_LastLayerError):
            run()
    torch.clear_autocast_cache()  # it holds copies of the weights, whose graph is used up
    return found


class _LastLayerError(Exception):
    """All layers are compared, and the rest of the model need not run."""


def _forward(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """The forward of a layer: compiled in training steps, inside of gradient checkpointing, which is not compiled."""
    if not (layer.training and torch.is_grad_enabled()):
        return type(layer).forward(layer, *args, **kwargs)
    forward = partial(_compiled(type(layer)), layer, **kwargs)
    if getattr(layer, "gradient_checkpointing", False):
        return layer._gradient_checkpointing_func(forward, *args)
    return forward(*args)


def _own_forward(kind: Any) -> Callable[..., Any]:
    """The forward of a class of layers without the gradient checkpointing that transformers wraps around it."""
    forward = kind.forward
    while "_gradient_checkpointing_func" in forward.__code__.co_names and hasattr(forward, "__wrapped__"):
        forward = forward.__wrapped__
    return forward


@cache
def _compiled(kind: Any) -> Callable[..., Any]:
    """One function for all layers of a class; their weights are arguments of its graphs, and so are rows and tokens."""
    options: Any = OPTIONS if BACKEND == "inductor" else None
    return torch.compile(_own_forward(kind), dynamic=True, backend=BACKEND, options=options)


def _difference(layer: Any, args: Any, kwargs: Any) -> float:
    kind = type(layer)
    expected, found = (
        _outputs_and_gradients(function, layer, args, kwargs) for function in (_own_forward(kind), _compiled(kind))
    )
    return max(_relative(*pair) for pair in zip(found, expected, strict=True))


def _outputs_and_gradients(function: Any, layer: Any, args: Any, kwargs: Any) -> list[list[Tensor]]:
    """Outputs of a layer, gradients of its inputs, and of its weights."""
    args, kwargs = _leaves(args), _leaves(kwargs)
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if _has_gradient(leaf)]
    weights = [weight for weight in layer.parameters() if weight.requires_grad]
    with _same_random_numbers(layer):
        outputs = [leaf for leaf in tree_leaves(function(layer, *args, **kwargs)) if _has_gradient(leaf)]
    direction = [torch.linspace(-1, 1, x.numel(), dtype=x.dtype, device=x.device).view_as(x) for x in outputs]
    gradients = torch.autograd.grad(outputs, [*inputs, *weights], direction, allow_unused=True)
    gradients = [torch.zeros(()) if gradient is None else gradient for gradient in gradients]
    return [[x.detach() for x in outputs], gradients[: len(inputs)], gradients[len(inputs) :]]


def _leaves(values: Any) -> Any:
    """Values, with those that have gradients cut off from what they were computed from; others stay the same objects."""
    return tree_map_only(Tensor, lambda x: x.detach().requires_grad_() if x.requires_grad else x, values)


def _has_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _relative(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Norm of the difference over the norm, of all tensors as one; 0 for a broken model, which guards report."""
    size = _norm(expected)
    difference = _norm([one - other for one, other in zip(found, expected, strict=True)])
    if not math.isfinite(size) or difference == 0:
        return 0.0
    return difference / size if size and math.isfinite(difference) else math.inf


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm([x.float() for x in tensors])) if tensors else 0.0


def _same_random_numbers(layer: nn.Module) -> Any:
    """Leave the random numbers of the training where they are."""
    device = next(layer.parameters()).device
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
