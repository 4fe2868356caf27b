"""``torch.cuda`` of the pretended device: what is asked of a GPU besides its operations."""

import importlib
import os
from types import SimpleNamespace
from typing import Any

import torch

from tests.support.pretended_cuda import attention, operations, phases, pinned, streams, varlen
from tests.support.pretended_cuda.counts import COUNTS

GIB = 2**30
NAME = "Pretended GPU"
CAPABILITY = (9, 0)
MEMORY = (100 * GIB, 140 * GIB)  # free and total
MOST = 8  # devices
_current = [0]


def install() -> None:
    """Let torch have the device from now on, in this process.

    bitsandbytes loads its kernels for CUDA where torch has a GPU, so it is imported before.
    """
    importlib.import_module("bitsandbytes")
    for name, function in _functions().items():
        setattr(torch.cuda, name, function)
        for module in (torch.cuda.memory, torch.cuda.random):
            if hasattr(module, name):
                setattr(module, name, function)
    torch.cuda.default_generators = tuple(torch.Generator(f"cuda:{number}") for number in range(MOST))
    torch.nn.functional.scaled_dot_product_attention = attention.attention  # pyright: ignore
    setattr(importlib.import_module("torch.nn.attention.varlen"), "varlen_attn", varlen.varlen_attn)  # noqa: B010
    setattr(torch.ops.aten, "_flash_attention_forward", varlen.flash_attention_forward)  # noqa: B010
    setattr(torch.Tensor, "pin_memory", pinned.pin)  # noqa: B010 (declared read-only)
    setattr(torch.Tensor, "is_pinned", pinned.is_pinned)  # noqa: B010
    setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)  # noqa: ARG005, B010
    torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter cannot change its class in place
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(1, device="cuda") is made on the CPU, then copied
    torch.inference_mode = _no_grad  # pyright: ignore
    phases.install()
    operations.OnDevice().__enter__()


def _no_grad(mode: Any = True) -> Any:
    """In place of ``inference_mode``, under which a tensor that holds another one cannot be detached."""
    if callable(mode):
        return torch.no_grad()(mode)
    return torch.set_grad_enabled(not mode and torch.is_grad_enabled())


def _count() -> int:
    return int(os.environ.get("LLMFT_PRETENDED_GPUS", "1"))


def _functions() -> dict[str, Any]:
    properties = SimpleNamespace(
        name=NAME, total_memory=MEMORY[1], major=CAPABILITY[0], minor=CAPABILITY[1], multi_processor_count=132
    )
    values = {
        "is_available": True,
        "is_initialized": True,
        "_lazy_init": None,
        "init": None,
        "_is_in_bad_fork": False,
        "is_current_stream_capturing": False,
        "is_bf16_supported": True,
        "get_device_properties": properties,
        "get_device_capability": CAPABILITY,
        "get_device_name": NAME,
        "empty_cache": None,
        "ipc_collect": None,
        "memory_stats": {},
        "memory_allocated": GIB,
        "memory_reserved": GIB,
        "max_memory_allocated": 2 * GIB,
        "max_memory_reserved": 2 * GIB,
        "reset_peak_memory_stats": None,
        "mem_get_info": MEMORY,
    }
    functions = {name: _returning(value) for name, value in values.items()}
    return (
        functions
        | streams.FUNCTIONS
        | {
            "device_count": _count,
            "current_device": lambda: _current[0],
            "set_device": _set_device,
            "synchronize": lambda device=None: COUNTS.add("sync", "synchronize"),  # noqa: ARG005
        }
    )


def _returning(value: Any) -> Any:
    return lambda *_, **__: value


def _set_device(device: Any) -> None:
    index = device if isinstance(device, int) else torch.device(device).index
    if index is not None and index >= 0:
        _current[0] = index
