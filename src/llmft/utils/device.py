"""The device and its capabilities."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llmft.utils.errors import UserError

log = logging.getLogger(__name__)
CPU_INFO = Path("/proc/cpuinfo")  # on Linux
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def autocast_dtype(precision: str) -> torch.dtype | None:
    """The dtype that Lightning's ``trainer.precision`` computes matrix products in under autocast; None without autocast."""
    return AUTOCAST.get(precision)


def running_autocast(device: str) -> torch.dtype | None:
    """The dtype of the autocast that is on, for a type of device; None without one, and on a device that has none (meta)."""
    enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if enabled else None


def default_device() -> torch.device:
    """The device for inference outside of training: the first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def accelerator_of(trainer: Any) -> str:
    """What a ``trainer`` config runs on: ``cuda``, ``mps`` or ``cpu``; ``gpu`` without any is ``cuda``."""
    if trainer.accelerator in ("cpu", "cuda", "mps"):
        return trainer.accelerator
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available() and os.environ.get("DISABLE_MPS") != "1":  # a variable of Lightning
        return "mps"
    return "cuda" if trainer.accelerator == "gpu" else "cpu"


def announced_device() -> torch.device:
    """As ``default_device``; a GPU that nobody asked for is named in the log, with the way to leave it alone."""
    device = default_device()
    if device.type == "cuda":
        log.info(
            "device: %s (CUDA_VISIBLE_DEVICES= before the command keeps it on the CPU)",
            torch.cuda.get_device_name(device),
        )
    return device


def runs_on_gpu(trainer: Any) -> bool:
    """Whether a ``trainer`` config runs on a CUDA GPU; ``accelerator: auto`` does if there is one."""
    return accelerator_of(trainer) == "cuda"


def bfloat16_units(*, gpu: bool) -> str | None:
    """The hardware of this machine that multiplies bfloat16, in words; None without any.

    Args:
        gpu: Of a CUDA GPU; where there is none, as for ``estimate``, one that does is assumed.
    """
    if gpu and not torch.cuda.is_available():
        return "no GPU here to ask; NVIDIA's do from Ampere (2020) on"
    if gpu:
        return "this GPU multiplies it in hardware" if torch.cuda.is_bf16_supported(False) else None
    for name, supported in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        if getattr(torch.cpu, supported, bool)():  # older versions of torch lack the function
            return f"this CPU multiplies it in hardware, by {name}"
    return None


def lacks_bfloat16(trainer: Any) -> str | None:
    """Why ``trainer.precision=bf16-mixed`` brings nothing on the GPU that a config runs on; None where it is fine."""
    if not runs_on_gpu(trainer) or bfloat16_units(gpu=True):
        return None
    return f"this GPU ({torch.cuda.get_device_name()}) emulates bfloat16, which is slower than float32"


@contextmanager
def tf32(precision: str) -> Iterator[None]:
    """Let CUDA multiply float32 matrices in TF32 inside the block, under autocast only.

    Args:
        precision: ``trainer.precision``; ``32-true`` changes nothing, so that float32 means float32.
    """
    before = torch.get_float32_matmul_precision()
    if autocast_dtype(precision) and before == "highest":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def hardware_name(device: torch.device) -> str:
    """The GPU or CPU that computes, in words: where they are equal, so are the numbers."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {torch.cuda.get_device_capability(device)}"
    lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines() if CPU_INFO.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    units = "" if bfloat16_units(gpu=False) is None else "with bfloat16"
    return " ".join(filter(None, [*models[:1], torch.backends.cpu.get_cpu_capability(), units]))


def hardware_of(trainer: Any) -> str:
    """What a ``trainer`` config runs on here, in words that change with what ``auto`` may choose."""
    accelerator = accelerator_of(trainer)
    if accelerator == "mps":
        return "Apple GPU (MPS)"
    if accelerator == "cuda" and not torch.cuda.is_available():
        return "no CUDA GPU"  # which check_accelerator refuses
    return hardware_name(torch.device(accelerator))


def check_accelerator(trainer: Any) -> None:
    """Refuse a ``trainer`` config that names a GPU where there is none, or more GPUs than there are.

    Raises:
        UserError: Names the key, the reason and the way out.
    """
    accelerator, devices = trainer.accelerator, trainer.devices
    if accelerator not in ("gpu", "cuda", "mps"):
        return
    there = torch.cuda.device_count() if accelerator != "mps" else 0
    if accelerator in ("gpu", "mps") and torch.backends.mps.is_available():
        there = max(there, 1)
    if not there:
        built = torch.version.cuda or torch.version.hip or accelerator == "mps"
        why = (
            "torch finds no GPU on this machine" if built else f"this torch ({torch.__version__}) is built without GPUs"
        )
        raise UserError(
            f"trainer.accelerator={accelerator}: {why}; "
            "use trainer=cpu, or trainer.accelerator=auto for a GPU only where there is one"
        )
    if devices > there:
        raise UserError(
            f"trainer.devices={devices}: this machine has {there} GPU{'s' if there > 1 else ''}; lower it, or use trainer=cpu"
        )


def cannot_page(accelerator: str = "auto") -> str | None:
    """Why the optimizer state cannot be paged here; None if it can.

    Args:
        accelerator: ``trainer.accelerator``.
    """
    if accelerator in ("cpu", "mps"):
        return f"paging moves memory between a CUDA GPU and the CPU, but trainer.accelerator is {accelerator}"
    if not torch.cuda.is_available():
        why = "paging moves memory between a CUDA GPU and the CPU, and there is no CUDA GPU here"
        return f"{why} (estimate trainer=gpu needs none)"
    return None


@contextmanager
def on_device(model: torch.nn.Module, device: Any) -> Iterator[None]:
    """Move a model to a device inside the block, and back afterwards."""
    before = next(model.parameters()).device
    model.to(device)
    try:
        yield
    finally:
        model.to(before)


def to_device(batch: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """A batch with its tensors (of inner mappings too) on a device; other values stay as they are."""

    def moved(value: Any) -> Any:
        if isinstance(value, Mapping):
            return to_device(value, device)
        return value.to(device) if isinstance(value, torch.Tensor) else value

    return {name: moved(value) for name, value in batch.items()}


def sent(tensor: torch.Tensor, device: Any) -> torch.Tensor:
    """A tensor of the host on a device; CUDA copies it from pinned memory, and the host does not wait.

    Args:
        tensor: On the CPU.
        device: Where it goes.
    """
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def float64(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float64, on its device; on the CPU if that has no float64 (Apple's GPUs)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def floats(*scalars: torch.Tensor) -> list[float]:
    """Scalars, on the CPU or on one other device, as floats: one copy, so that the host waits for the device once."""
    there = [float64(scalar.detach()) for scalar in scalars if scalar.device.type != "cpu"]
    copied = iter(torch.stack(there).tolist() if there else ())
    return [float(scalar) if scalar.device.type == "cpu" else next(copied) for scalar in scalars]
