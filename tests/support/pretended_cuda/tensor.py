"""A tensor that says ``cuda:0``, and holds real numbers on the CPU."""

from typing import Any

import torch
from torch import Tensor

from tests.support.pretended_cuda.counts import COUNTS


class PretendedTensor(Tensor):
    """Says that it is on a CUDA device; operations on it run on the CPU tensor that it holds.

    Attributes:
        held: The numbers, on the CPU.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device, *, requires_grad: bool = False) -> "PretendedTensor":
        assert not isinstance(held, PretendedTensor)
        return Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
            requires_grad=requires_grad,
        )

    def __init__(self, held: Tensor, device: torch.device, *, requires_grad: bool = False) -> None:  # noqa: ARG002
        self.held = held

    def __repr__(self, **_: Any) -> str:  # pyright: ignore
        return f"PretendedTensor({self.held!r}, device='{self.device}')"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from tests.support.pretended_cuda.operations import run

        return run(func, args, kwargs or {})

    def __reduce_ex__(self, protocol: Any) -> Any:
        COUNTS.add("sync", "copy to host")
        return self.held.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> "PretendedTensor":
        copied = PretendedTensor(self.held.clone(), self.device, requires_grad=self.requires_grad)
        if getattr(self, "_is_param", False):
            copied._is_param = True  # what torch.nn.Parameter looks for in another class of tensors
        memo[id(self)] = copied
        return copied

    def __format__(self, spec: str) -> str:
        return format(self.item() if not self.dim() else self.held, spec)

    def tolist(self) -> Any:
        """The numbers, which the host waits for."""
        COUNTS.add("sync", "tolist")
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        """Refused, as CUDA does."""
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def data_ptr(self) -> int:
        """Of the held numbers: tensors that share them are told by it."""
        return self.held.data_ptr()

    def untyped_storage(self) -> Any:
        """Of the held numbers."""
        return self.held.untyped_storage()
