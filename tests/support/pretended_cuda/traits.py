"""What is to be known about an operation of torch, looked up once."""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import torch

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
READS_INDEX = {aten.index.Tensor, aten._unsafe_index.Tensor}
WRITES_INDEX = {
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
# CUDA refuses them under torch.use_deterministic_algorithms(True); the first one for floating-point numbers only.
CUMSUM = {aten.cumsum.default, aten.cumsum_.default}
NOT_DETERMINISTIC = CUMSUM | {aten.kthvalue.default, aten.histc.default, aten.put_.default, aten.median.dim}


class Traits(NamedTuple):
    """Of an operation.

    Attributes:
        name: Without the overload.
        waits: What the host waits for; empty if it does not.
        is_composite: It is made of other operations.
        is_view: It computes nothing.
        changes_shape: It changes the shape of its first argument (``unsqueeze_``).
        written: For each result, the argument that it is (``out=`` too); empty if nothing is written.
    """

    name: str
    waits: str
    is_composite: bool
    is_view: bool
    changes_shape: bool
    written: tuple[int | str, ...]


@cache
def traits(func: Any) -> Traits:
    """Of an overload of ``torch.ops``."""
    schema = func._schema
    aliases = [returned.alias_info for returned in schema.returns]
    return Traits(
        name=func.overloadpacket.__name__,
        waits=WAITS.get(func, ""),
        is_composite=torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"),
        is_view=any(alias is not None and not alias.is_write for alias in aliases),
        changes_shape=torch.Tag.inplace_view in func.tags or func.overloadpacket in (aten.resize_, aten.set_),
        written=_written(schema) if schema.is_mutable else (),
    )


def _written(schema: Any) -> tuple[int | str, ...]:
    names: Mapping[str, int | str] = {
        name: argument.name if argument.kwarg_only else number
        for number, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
        for name in argument.alias_info.before_set
    }
    return tuple(
        names[name]
        for returned in schema.returns
        if returned.alias_info is not None
        for name in returned.alias_info.before_set
    )
