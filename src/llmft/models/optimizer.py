"""AdamW of bitsandbytes: states in 8 bits, or paged out of GPU memory; the states that any optimizer keeps."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from llmft.runs.value_faults import TensorKind
from llmft.utils.device import cannot_page

log = logging.getLogger(__name__)

# Elements of the parameter that ``kept_state`` steps; bitsandbytes keeps 32 bits below 4,096.
PROBED = 2**16


def bnb_adamw(
    params: Iterable[Any],
    *,
    lr: float,
    weight_decay: float,
    betas: Iterable[float],
    bits: int,
    paged: bool,
    fallback: bool,
) -> Any:
    """AdamW of bitsandbytes.

    Args:
        params: Trainable parameters.
        lr: Learning rate.
        weight_decay: Decoupled, as in AdamW.
        betas: Decay rates of both moments.
        bits: 8 or 32, of each moment; tensors of fewer than 4,096 weights keep 32.
        paged: Whether the states may move to CPU memory when GPU memory runs out.
        fallback: Whether to train unpaged on a device that cannot page; without it, the config check refuses that.

    Raises:
        ValueError: The device cannot page, and ``fallback`` is false.
    """
    from bitsandbytes.optim.adamw import AdamW

    if paged and (why := cannot_page()):
        if not fallback:
            raise ValueError(why)
        log.warning("optim: paging is off (%s), because of optim.fallback=true", why)
        paged = False
    return AdamW(params, lr=lr, weight_decay=weight_decay, betas=tuple(betas), optim_bits=bits, is_paged=paged)


def kept_state(make: Callable[[list[Any]], Any], parameter: Any) -> dict[str, Any]:
    """The state that an optimizer keeps of a parameter after its first step, as a checkpoint holds it.

    Args:
        make: Makes the optimizer of a list of parameters.
        parameter: Only its shape and dtype are read. A large one is represented by a smaller one of as many dimensions.

    Returns:
        The state by name, a ``TensorKind`` for each tensor; empty for an optimizer that cannot step by itself (L-BFGS).
    """
    shape = list(parameter.shape)
    while torch.Size(shape).numel() > PROBED:
        largest = shape.index(max(shape))
        shape[largest] = (shape[largest] + 1) // 2
    small = torch.nn.Parameter(torch.zeros(shape, dtype=parameter.dtype))
    small.grad = torch.zeros_like(small)
    try:
        optimizer = make([small])
        optimizer.step()
    except (TypeError, RuntimeError, ValueError):
        return {}
    found = optimizer.state_dict()["state"].get(0, {})
    return _kinds(found, {tuple(small.shape): tuple(parameter.shape), (): ()}, exact=shape == list(parameter.shape))


def _kinds(state: Mapping[str, Any], shapes: Mapping[tuple[int, ...], Any], *, exact: bool) -> dict[str, Any]:
    kinds = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            kinds[name] = _kinds(value, shapes, exact=exact)
        elif isinstance(value, torch.Tensor):
            shape = tuple(value.shape)
            kinds[name] = TensorKind(value.dtype, shapes.get(shape, shape if exact else None))
        else:
            kinds[name] = value
    return kinds
