"""One operation of torch on the pretended device: whether CUDA would refuse it or make the host wait, then its numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from tests.support.pretended_cuda.counts import COUNTS
from tests.support.pretended_cuda.pinned import is_pinned
from tests.support.pretended_cuda.tensor import PretendedTensor, held

aten = torch.ops.aten

# The host reads a number or a shape that the device computes.
WAITS = {
    aten._local_scalar_dense.default: "item",
    aten.is_nonzero.default: "item",
    aten.equal.default: "equal",
    aten.allclose.default: "allclose",
    aten.nonzero.default: "nonzero",
    aten.where.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten._unique2.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.unique_dim.default: "unique",
    aten.bincount.default: "bincount",
    aten.repeat_interleave.Tensor: "repeat_interleave",
}
HOST_VALUES = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default, aten.allclose.default}
INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index_put.default,
}
COPIES = {aten.copy_.default, aten._foreach_copy_.default, aten.set_.source_Tensor}
PRODUCTS = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.addbmm.default,
    aten.addmv.default,
    aten.mv.default,
    aten.dot.default,
    aten.linear.default,
    aten.convolution.default,
}


class OnDevice(TorchDispatchMode):
    """Takes the operations that no pretended tensor is in: those that make one (``torch.zeros(2, device="cuda")``)."""

    def __init__(self) -> None:
        super().__init__()
        self.composite: dict[Any, bool] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_composite(func):  # under no_grad some arrive whole
            with self:
                return func.decompose(*args, **kwargs)
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda":
            return run(func, args, kwargs)
        if any(isinstance(leaf, PretendedTensor) for leaf in tree_leaves((args, kwargs))):
            return run(func, args, kwargs)
        return func(*args, **kwargs)

    def _is_composite(self, func: Any) -> bool:
        if func not in self.composite:
            self.composite[func] = torch._C._dispatch_has_kernel_for_dispatch_key(
                func.name(), "CompositeImplicitAutograd"
            )
        return self.composite[func]


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Count an operation, and compute it with the numbers that its tensors hold.

    Raises:
        RuntimeError: Its tensors are on several devices, as CUDA says it.
    """
    if func is aten._to_copy.default:
        return _moved(args[0], kwargs)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, PretendedTensor)]
    others = [tensor for tensor in tensors if not isinstance(tensor, PretendedTensor)]
    given = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    device = _full(given) if given is not None else ours[0].device
    if ours and others:
        _check_mixed(func, args, kwargs, others)
    if len({tensor.device for tensor in ours}) > 1 and func not in COPIES:
        refuse(func, "several GPUs")
    generator = kwargs.get("generator")
    if device.type == "cuda" and generator is not None and generator.device.type == "cpu":
        refuse(func, "a generator of the CPU")
    _count(func, args, kwargs, ours)
    on_cpu = {"device": torch.device("cpu") if given.type == "cuda" else given} if given is not None else {}
    with drawing(generator) as drawn:
        result = func(*tree_map(held, args), **(tree_map(held, kwargs) | on_cpu | drawn))
    if func in HOST_VALUES or device.type != "cuda":
        return result
    result = tree_map(lambda value: _pretended(value, device), result)
    if func._schema.is_mutable or _is_view(func):
        return return_and_correct_aliasing(func, args, kwargs, result)
    return result


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
        options["device"] = torch.device("cpu") if target.type == "cuda" else target
    result = aten._to_copy.default(held(source), **options)
    if target.type == "meta":
        return result
    if source.device == target:
        COUNTS.operation()
    else:
        _count_copy(source, target, waits=not kwargs.get("non_blocking", False))
    return _pretended(result, target) if target.type == "cuda" else result


def _count_copy(source: Tensor, target: torch.device, *, waits: bool) -> None:
    """CUDA waits for a copy unless it is told not to; one from pageable memory is staged by the host even then."""
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
    elif func in INDEXING:
        if not isinstance(args[0], PretendedTensor):
            refuse(func, "a tensor of the CPU is indexed")
        for index in args[1]:
            if isinstance(index, Tensor) and not isinstance(index, PretendedTensor):
                COUNTS.add("sync", "copy to device, index")
        if len(args) > 2 and not isinstance(args[2], PretendedTensor) and args[2].dim():
            refuse(func, "a value of the CPU")
    elif shapes := [tuple(tensor.shape) for tensor in others if tensor.dim() and tensor.device.type == "cpu"]:
        refuse(func, f"of the CPU: {shapes}")
    elif func._schema.is_mutable and isinstance(args[0], Tensor) and not isinstance(args[0], PretendedTensor):
        refuse(func, "in place, on the CPU")


def refuse(func: Any, reason: str) -> None:
    """Count a mismatch, which the caller of the operation may hide, and raise CUDA's error."""
    COUNTS.add("mismatch", f"{func}: {reason}")
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({func}: {reason})"
    )


def _count(func: Any, args: Any, kwargs: dict[str, Any], ours: list[PretendedTensor]) -> None:
    if ours and func in WAITS and kwargs.get("output_size") is None:
        COUNTS.add("sync", WAITS[func])
    elif func in INDEXING and ours and _by_mask(func, args):
        COUNTS.add("sync", "index by a mask")
    if func in PRODUCTS:
        dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in ours})
        COUNTS.add("product", f"{func.overloadpacket.__name__} {' x '.join(dtypes)}")
    if func not in HOST_VALUES and not _is_view(func):
        COUNTS.operation()


def _by_mask(func: Any, args: Any) -> bool:
    """Whether CUDA looks for the positions of a mask: not to fill it with one number."""
    if not any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
        return False
    return func in (aten.index.Tensor, aten._unsafe_index.Tensor) or args[2].numel() != 1


def _full(device: torch.device) -> torch.device:
    """``cuda`` with the number of the current device."""
    return (
        torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" and device.index is None else device
    )


def _pretended(value: Any, device: torch.device) -> Any:
    plain = isinstance(value, Tensor) and not isinstance(value, PretendedTensor)
    return PretendedTensor(value, device) if plain else value


def _is_view(func: Any) -> bool:
    return any(
        returned.alias_info is not None and not returned.alias_info.is_write for returned in func._schema.returns
    )
