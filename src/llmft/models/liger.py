"""Liger's fused RMSNorm and gated MLP, on CUDA, in the modules of one model and where gradients are computed.

Liger's own patch replaces classes and functions of transformers for the whole process. Here a forward is bound to each module
that was found to compute the same, so that a teacher, or a model loaded later, is left alone. Validation, evaluation and
answers compute no gradient: they are those of the modules themselves. Rotary positions are a function of transformers, which
no model owns, and the loss is that of ``loss.py``, which has weights and sums: neither is replaced.

Shapes: T tokens, H the size of a norm or of the hidden states.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from llmft.utils.device import running_autocast
from llmft.utils.modules import eval_mode

DEVICES = ("cuda",)
GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}
# Of the largest value; outputs and gradients of one module.
TOLERANCE, HALF_TOLERANCE = 1e-4, 2e-2


class Norm(NamedTuple):
    """An RMSNorm: what is added to its weights, and whether they are multiplied before (gemma) or after rounding (llama)."""

    offset: float
    casting: str


class GatedMLP(NamedTuple):
    """An MLP with a gate: the name of its autograd function in ``liger_kernel.ops``, and of what it computes."""

    function: str
    name: str


NORMS = (Norm(0.0, "llama"), Norm(1.0, "gemma"))
SWIGLU, GEGLU = GatedMLP("LigerSiLUMulFunction", "SwiGLU"), GatedMLP("LigerGELUMulFunction", "GeGLU")


def install(model: Any) -> dict[str, int]:
    """Bind Liger's kernels to the modules that compute the same with them: outputs and gradients are compared first.

    Args:
        model: A transformers or peft model, on the device that computes.

    Returns:
        Number of modules by what they are: ``{"RMSNorm": 49, "SwiGLU": 24}``; empty if none fits.
    """
    verdicts: dict[Any, Norm | GatedMLP | None] = {}
    found: Counter[str] = Counter()
    if model.device.type not in DEVICES:
        return found
    for module in model.modules():
        candidates = [] if "forward" in vars(module) else list(_candidates(module))
        if not candidates:
            continue
        key = type(module), candidates[0], *((p.shape, p.dtype) for p in module.parameters())
        if key not in verdicts:
            verdicts[key] = next((part for part in candidates if _computes_the_same(module, part, model.dtype)), None)
        if part := verdicts[key]:
            _bind(module, part)
            found["RMSNorm" if isinstance(part, Norm) else part.name] += 1
    return dict(sorted(found.items()))


def uninstall(model: Any) -> None:
    """Give all modules their own forward back.

    Args:
        model: A model, after ``install`` or not.
    """
    for module in model.modules():
        if vars(module).pop("liger", None):
            del module.forward


def _bind(module: Any, part: Norm | GatedMLP) -> None:
    module.liger = part
    # a bound method is copied with its module
    module.forward = MethodType(_norm if isinstance(part, Norm) else _gated_mlp, module)


def _candidates(module: Any) -> Iterable[Norm | GatedMLP]:
    weight, children = getattr(module, "weight", None), dict(module.named_children())
    if children.keys() == GATED and len(list(module.parameters(recurse=False))) == 0:
        values = torch.linspace(-6, 6, 241)
        for part, activation in ((SWIGLU, functional.silu), (GEGLU, _gelu)):
            if torch.allclose(children["act_fn"](values), activation(values), rtol=1e-5, atol=1e-6):
                yield part
    is_norm = "RMSNorm" in type(module).__name__ or type(module).__name__ == "T5LayerNorm"
    if is_norm and not children and _epsilon(module) and isinstance(weight, Tensor) and weight.dim() == 1:
        yield from NORMS


def _gelu(values: Tensor) -> Tensor:
    return functional.gelu(values, approximate="tanh")


def _epsilon(module: Any) -> float | None:
    return getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)


def _runs(value: Tensor) -> bool:
    return torch.is_grad_enabled() and value.device.type in DEVICES


def _norm(module: Any, hidden_states: Tensor) -> Tensor:
    """[..., H] to the same; the kernel returns the dtype of its input, which another dtype of the weights may widen."""
    if not _runs(hidden_states) or hidden_states.dtype != module.weight.dtype:
        return type(module).forward(module, hidden_states)
    from liger_kernel.ops import LigerRMSNormFunction  # pyright: ignore[reportMissingImports]

    offset, casting = module.liger
    # not in place: the gradient of the output is that of a residual connection too
    return LigerRMSNormFunction.apply(hidden_states, module.weight, _epsilon(module), offset, casting, False)


def _gated_mlp(module: Any, x: Tensor) -> Tensor:
    """[..., H] to the same."""
    if not _runs(x):
        return type(module).forward(module, x)
    from liger_kernel import ops  # pyright: ignore[reportMissingImports]

    return module.down_proj(getattr(ops, module.liger.function).apply(module.gate_proj(x), module.up_proj(x)))


def _computes_the_same(module: Any, part: Norm | GatedMLP, dtype: torch.dtype) -> bool:
    """Compare output and gradients with those of the module's own forward, on its device and in its dtype."""
    is_norm = isinstance(part, Norm)
    size = module.weight.shape[0] if is_norm else module.gate_proj.in_features
    dtype = module.weight.dtype if is_norm else dtype
    device = next(module.parameters()).device
    # a generator of its own leaves the random numbers of the training where they are
    values = torch.randn(1, 8, size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    with eval_mode(module), torch.enable_grad():
        expected = _output_and_gradients(module, module.forward, values)
        _bind(module, part)
        try:
            found = _output_and_gradients(module, module.forward, values)
        finally:
            uninstall(module)
    half = {dtype, running_autocast(device.type) or dtype} & {torch.float16, torch.bfloat16}
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    pairs = list(zip(found, expected, strict=True))
    return all(bool((a - b).abs().max() <= tolerance * b.abs().max()) and a.dtype == b.dtype for a, b in pairs)


def _output_and_gradients(module: Any, forward: Callable[[Tensor], Tensor], values: Tensor) -> list[Tensor]:
    x = values.clone().requires_grad_()
    output = forward(x)
    trained = [p for p in module.parameters() if p.requires_grad]
    weights = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output)
    return [output.detach(), *torch.autograd.grad((output.float() * weights).sum(), [x, *trained])]
