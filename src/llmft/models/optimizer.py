"""AdamW of bitsandbytes: states in 8 bits, or paged out of GPU memory; the states that any optimizer keeps."""

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import torch

from llmft.runs.value_faults import TensorKind
from llmft.utils.device import cannot_page

log = logging.getLogger(__name__)

# Elements of the parameter that ``kept_state`` steps; bitsandbytes keeps 32 bits below 4,096.
PROBED = 2**16
# Names of the two moments in a state of bitsandbytes.
MOMENTS = ("state1", "state2")


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
    kind: Any = paged_adamw() if paged else AdamW
    return kind(params, lr=lr, weight_decay=weight_decay, betas=tuple(betas), optim_bits=bits, is_paged=paged)


@cache
def paged_adamw() -> type:
    """AdamW of bitsandbytes whose moments are paged after a resume too; made here, because the import takes a second."""
    from bitsandbytes.optim.adamw import AdamW

    class PagedAdamW(AdamW):
        """Moments of a checkpoint wait on the CPU until they are first needed, and go into paged memory then.

        bitsandbytes 0.50 pages moments when it makes them, and moves those of a checkpoint to the GPU, as Lightning does:
        a run that fits because of paging would not fit once it is resumed.
        """

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.waiting: dict[Any, dict[str, torch.Tensor]] = {}
            self.register_step_pre_hook(lambda *_: self.page())

        def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = True) -> None:
            super().load_state_dict(state_dict, move_to_device=False)  # the first step moves the rest
            self.initialized = False
            self.waiting = {
                p: {name: state.pop(name) for name in MOMENTS if name in state}
                for p, state in self.state.items()
                if isinstance(p, torch.Tensor)
            }

        def state_dict(self) -> dict[str, Any]:
            """As a checkpoint holds it, of plain tensors."""
            self.page()
            found = super().state_dict()
            for state in found["state"].values():
                for moments in (value for value in state.values() if isinstance(value, dict)):
                    moments |= {name: moments[name].detach() for name in MOMENTS if name in moments}
            return found

        @torch.no_grad()
        def page(self) -> None:
            """Put moments that wait into buffers as bitsandbytes makes them for new moments."""
            buffers = [
                (p, name, self.get_state_buffer(p, dtype=value.dtype), value)
                for p, moments in self.waiting.items()
                for name, value in moments.items()
            ]
            if any(p.is_cuda for p in self.waiting):
                torch.cuda.synchronize()  # they are filled by the GPU, and then written by the CPU
            for p, name, buffer, value in buffers:
                self.state[p][name] = buffer.copy_(value)
            self.waiting = {}

    return PagedAdamW


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
        with warnings.catch_warnings(action="ignore"):  # bitsandbytes says that a CPU cannot page
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
