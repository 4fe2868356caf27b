"""One operation of torch on the pretended device: whether CUDA would refuse it or let the host wait, then its numbers."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from tests.support.pretended_cuda.counts import COUNTS
from tests.support.pretended_cuda.pinned import is_pinned
from tests.support.pretended_cuda.tensor import PretendedTensor
from tests.support.pretended_cuda.traits import (
    COPIES,
    CUMSUM,
    HOST_VALUES,
    NOT_DETERMINISTIC,
    PRODUCTS,
    READS_INDEX,
    WRITES_INDEX,
    aten,
    traits,
)

CPU = torch.device("cpu")
HALF = (torch.float16, torch.bfloat16)


class OnDevice(TorchDispatchMode):
    """Takes the operations that no pretended tensor is in, too: those that make one (``torch.zeros(2, device="cuda")``)."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # a wrapper around each call, for a compiler that is not used here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if traits(func).is_composite:  # without gradients some arrive whole
            with self:
                return func.decompose(*args, **kwargs)
        device = kwargs.get("device")
        on_device = device is not None and torch.device(device).type == "cuda"
        if on_device or PretendedTensor in types:
            return run(func, args, kwargs)
        return func(*args, **kwargs)


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Count an operation, and compute it with the numbers that its tensors hold.

    Raises:
        RuntimeError: Its tensors are on several devices, as CUDA says it; or it is not deterministic, and should be.
    """
    if func is aten._to_copy.default:
        return _moved(args[0], kwargs)
    tensors = _tensors((*args, *kwargs.values()))
    ours = [tensor for tensor in tensors if isinstance(tensor, PretendedTensor)]
    given = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    device = _full(given) if given is not None else ours[0].device
    if ours and len(ours) < len(tensors):
        _check_mixed(func, args, kwargs, [one for one in tensors if not isinstance(one, PretendedTensor)])
    if len(ours) > 1 and func not in COPIES and any(one.device != ours[0].device for one in ours):
        refuse(func, "several GPUs")
    generator = kwargs.get("generator")
    if device.type == "cuda" and generator is not None and generator.device.type == "cpu":
        refuse(func, "a generator of the CPU")
    if torch.are_deterministic_algorithms_enabled():
        _check_deterministic(func, ours)
    _count(func, args, kwargs, ours)
    options = {name: _held(value) for name, value in kwargs.items()}
    if given is not None:
        options["device"] = CPU if given.type == "cuda" else given
    with drawing(generator) as drawn:
        result = _computed(func, _held(args), options | drawn)
    if func in HOST_VALUES or device.type != "cuda":
        return result
    return _returned(func, args, kwargs, result, device)


def _computed(func: Any, args: Any, options: dict[str, Any]) -> Any:
    """A product of half precision is added up in float32, as on a GPU; a CPU without units for it takes 50 times longer."""
    kind = args[0].dtype if func in PRODUCTS else None
    if kind not in HALF:
        return func(*args, **options)
    return func(*(one.float() if isinstance(one, Tensor) else one for one in args), **options).to(kind)


def _returned(func: Any, args: Any, kwargs: dict[str, Any], result: Any, device: torch.device) -> Any:
    """Results on the device; those that were written are the arguments themselves."""
    known = traits(func)
    if known.changes_shape:
        return return_and_correct_aliasing(func, args, kwargs, _pretended(result, device))
    if known.written:
        written = [kwargs[one] if isinstance(one, str) else args[one] for one in known.written]
        return written[0] if len(written) == 1 else tuple(written)
    return _pretended(result, device)


@contextmanager
def drawing(generator: Any) -> Iterator[dict[str, torch.Generator]]:
    """A generator of the CPU, as an argument, in the state of one of the device, which is in its state afterwards."""
    if generator is None or generator.device.type == "cpu":
        yield {}
        return
    twin = torch.Generator()
    twin.set_state(generator.get_state())
    yield {"generator": twin}
    generator.set_state(twin.get_state())


def _moved(source: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """``Tensor.to`` another device or dtype."""
    given = kwargs.get("device")
    target = _full(torch.device(given)) if given is not None else source.device
    options = {**kwargs, "pin_memory": None}
    if target.type == "cuda" or given is not None:
        options["device"] = CPU if target.type == "cuda" else target
    result = aten._to_copy.default(_held(source), **options)
    if target.type == "meta":
        return result
    if source.device == target:
        COUNTS.operation()
    else:
        _count_copy(source, target, waits=not kwargs.get("non_blocking", False))
    return _pretended(result, target) if target.type == "cuda" else result


def _count_copy(source: Tensor, target: torch.device, *, waits: bool) -> None:
    """CUDA waits for a copy unless it is told not to; one from pageable memory is staged by the host even then.

    Nothing is copied of an empty tensor, as which transformers makes the cache of a layer.
    """
    if not source.numel():
        return
    if isinstance(source, PretendedTensor):
        where = f"copy to {'host' if target.type == 'cpu' else target}"
    else:
        where = f"copy to device{'' if is_pinned(source) else ', pageable'}"
    COUNTS.add("sync" if waits else "copy", where)


def _check_mixed(func: Any, args: Any, kwargs: dict[str, Any], others: list[Tensor]) -> None:
    """CPU tensors beside those of the device: a copy, an index (copied), a scalar, or an error."""
    if func is aten.copy_.default:
        waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        _count_copy(args[1], args[0].device, waits=waits)
    elif func in COPIES:
        _count_copy(others[0], torch.device("cuda", 0), waits=True)
    elif func in READS_INDEX or func in WRITES_INDEX:
        if not isinstance(args[0], PretendedTensor):
            refuse(func, "a tensor of the CPU is indexed")
        for index in _tensors(args[1]):
            if not isinstance(index, PretendedTensor):
                COUNTS.add("sync", "copy to device, index")
        if len(args) > 2 and not isinstance(args[2], PretendedTensor) and args[2].dim():
            refuse(func, "a value of the CPU")
    elif shapes := [tuple(tensor.shape) for tensor in others if tensor.dim() and tensor.device.type == "cpu"]:
        refuse(func, f"of the CPU: {shapes}")
    elif traits(func).written and isinstance(args[0], Tensor) and not isinstance(args[0], PretendedTensor):
        refuse(func, "in place, on the CPU")


def refuse(func: Any, reason: str) -> None:
    """Count a mismatch, which the caller of the operation may hide, and raise CUDA's error."""
    COUNTS.add("mismatch", f"{func}: {reason}")
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({func}: {reason})"
    )


def _check_deterministic(func: Any, ours: list[PretendedTensor]) -> None:
    """What CUDA refuses, or warns of, under ``torch.use_deterministic_algorithms``."""
    reason = ""
    if func in NOT_DETERMINISTIC and (func not in CUMSUM or ours[0].is_floating_point()):
        reason = "does not have a deterministic implementation"
    elif func in PRODUCTS and os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in (":4096:8", ":16:8"):
        reason = "is not deterministic without CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment"
    if reason:
        COUNTS.add("not deterministic", traits(func).name)
        if not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError(f"{func} {reason}, but you set 'torch.use_deterministic_algorithms(True)'")


def _count(func: Any, args: Any, kwargs: dict[str, Any], ours: list[PretendedTensor]) -> None:
    known = traits(func)
    if ours and known.waits and kwargs.get("output_size") is None:  # of repeat_interleave
        COUNTS.add("sync", known.waits)
    elif ours and _looks_for_positions(func, args):
        COUNTS.add("sync", "index by a mask")
    if func in PRODUCTS:
        dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in ours})
        COUNTS.add("product", f"{known.name} {' x '.join(dtypes)}")
    if func not in HOST_VALUES and not known.is_view:
        COUNTS.operation()


def _looks_for_positions(func: Any, args: Any) -> bool:
    """Whether CUDA looks for the positions of a mask: to read there, or to write other than one number."""
    reads = func in READS_INDEX
    if not reads and (func not in WRITES_INDEX or args[2].numel() == 1):
        return False
    return any(index.dtype in (torch.bool, torch.uint8) for index in _tensors(args[1]))


def _full(device: torch.device) -> torch.device:
    """``cuda`` with the number of the current device."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """All tensors among values, and in lists and tuples of them."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif type(value) in (list, tuple):
            found += _tensors(value)
    return found


def _held(value: Any) -> Any:
    """The CPU tensors in place of the pretended ones."""
    if isinstance(value, PretendedTensor):
        return value.held
    return type(value)(_held(one) for one in value) if type(value) in (list, tuple) else value


def _pretended(value: Any, device: torch.device) -> Any:
    """Pretended tensors in place of those of the CPU."""
    if isinstance(value, Tensor):
        return value if isinstance(value, PretendedTensor) else PretendedTensor(value, device)
    return type(value)(_pretended(one, device) for one in value) if type(value) in (list, tuple) else value
