"""Whether the kernels of torch's flex attention fit into the shared memory of a card that is not here. Prints a table.

    python benchmarks/flex_kernels.py 9.0    # compute capability; with Triton (pip install triton) and g++, without a GPU

Inductor makes the source of forward and backward pass for tensors without numbers, with lengths that vary, grouped heads and the
mask of ``model.attention=flex``; Triton compiles it for the card. Nothing runs. A minute for each line.
"""

import importlib.util
import re
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Bytes of shared memory that a block may ask for, and number of multiprocessors.
CARDS = {"7.5": (65536, 40), "8.0": (166912, 108), "9.0": (232448, 132), "12.0": (101376, 170)}
SIZES, CAP = (64, 128, 256), 50.0
KERNEL = re.compile(r"async_compile\.triton\('(\w+_tem_\w+)', '''\n(.*?)''', device_str", re.DOTALL)


def pretend(capability: str) -> None:
    """Let torch believe in a card, and Triton compile for it."""
    import torch
    import triton
    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor import config
    from torch._inductor.runtime import triton_helpers
    from triton.backends.compiler import GPUTarget

    memory, processors = CARDS[capability]
    major, minor = map(int, capability.split("."))
    found = SimpleNamespace(
        name="card", total_memory=80 << 30, major=major, minor=minor, multi_processor_count=processors, warp_size=32,
        max_threads_per_multi_processor=2048, regs_per_multiprocessor=65536, max_threads_per_block=1024, gcnArchName="",
        shared_memory_per_block_optin=memory, shared_memory_per_block=49152, L2_cache_size=50 << 20,
    )  # fmt: skip
    answers = {
        "get_device_properties": found, "get_device_capability": (major, minor), "current_device": 0, "device_count": 1,
        "is_bf16_supported": major >= 8, "get_device_name": "card", "synchronize": None,
    }  # fmt: skip
    for name, value in answers.items():
        setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    for owner, name, value in (
        (CudaInterface.Worker, "get_device_properties", found), (CudaInterface.Worker, "current_device", 0),
        (CudaInterface, "get_device_properties", found), (CudaInterface, "is_available", True),
        (CudaInterface, "get_compute_capability", 10 * major + minor), (CudaInterface, "is_triton_capable", True),
        (CudaInterface, "raise_if_triton_unavailable", None), (CudaInterface, "is_bf16_supported", major >= 8),
    ):  # fmt: skip
        setattr(owner, name, staticmethod(lambda *_, value=value, **__: value))
    target = GPUTarget("cuda", 10 * major + minor, 32)
    driver: Any = triton.runtime.driver
    driver.set_active(SimpleNamespace(
        get_current_target=lambda: target, get_active_torch_device=lambda: torch.device("cuda", 0),
        get_current_device=lambda: 0, get_current_stream=lambda *_: 0,
    ))  # fmt: skip
    triton_helpers.set_driver_to_gpu = lambda: None
    config.compile_threads, config.fx_graph_cache = 1, False


def sources(dtype: Any, size: int) -> list[str]:
    """Inductor's source of the forward and the backward pass, for lengths that vary."""
    import torch
    from torch._functorch import config
    from torch._inductor.graph import GraphLowering
    from torch._subclasses.fake_tensor import FakeTensorMode

    from llmft.models.attention import flex_kernel
    from llmft.models.attention.key_ranges import block_mask, key_ranges

    made: list[str] = []

    def keep(graph: Any) -> Any:
        code, _ = graph.codegen()
        made.append(getattr(code, "value", code))
        return SimpleNamespace(call=_not_run, __file__="", __path__="", key="", __name__="", partitions=[], runner=None)

    setattr(GraphLowering, "compile_to_module", keep)  # noqa: B010 (declared with another type)
    config.enable_autograd_cache, config.force_non_lazy_backward_lowering = False, True
    torch._dynamo.reset()
    for tokens in (1000, 1500):  # lengths are dynamic from the second on
        with FakeTensorMode():
            heads = [torch.empty(1, tokens, n, size, dtype=dtype, device="cuda").transpose(1, 2) for n in (8, 2, 2)]
            offsets = torch.empty(4, dtype=torch.int32, device="cuda")
            mask = block_mask(key_ranges([offsets, offsets], tokens, tokens, causal=True))
            try:
                flex_kernel.attend([x.requires_grad_() for x in heads], mask, flex_kernel.Scores(0.125, CAP))
            except RuntimeError as error:
                if "not run" not in str(error):
                    raise
    return made[-2:]


def _not_run(_: Any) -> Any:
    raise RuntimeError("not run")


def needed(source: str, capability: str) -> int:
    """Bytes of shared memory of a block of the attention kernel in a source."""
    import triton
    from torch._inductor.runtime import triton_heuristics
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    given: dict[str, Any] = {}
    triton_heuristics.template = lambda **options: lambda function: given.update(options, function=function)
    ((name, body),) = KERNEL.findall(source)
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(body)
        file.flush()
        spec: Any = importlib.util.spec_from_file_location(name, file.name)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        meta, function = given["triton_meta"], given["function"]
        constants = {(function.arg_names.index(key),): value for key, value in meta["constants"].items()}
        target = GPUTarget("cuda", int(capability.replace(".", "")), 32)
        options = {key: given[key] for key in ("num_warps", "num_stages")}
        made: Any = triton.compile(
            ASTSource(function, meta["signature"], constants, meta["configs"][0]), target, options
        )
    return made.metadata.shared


def main() -> None:
    capability = sys.argv[1]
    sys.path.insert(0, str(ROOT))
    from tests.support.pretended_cuda import library

    library.load()  # before torch
    import torch

    pretend(capability)
    half = torch.float16 if capability == "7.5" else torch.bfloat16
    print(f"compute capability {capability}: {CARDS[capability][0]:,} bytes for a block")
    for dtype in (half, torch.float32):
        for size in SIZES:
            forward, backward = (needed(source, capability) for source in sources(dtype, size))
            fits = "fits" if max(forward, backward) <= CARDS[capability][0] else "does not fit"
            print(
                f"{str(dtype)[6:]}, {size} dimensions: forward {forward:,}, backward {backward:,}: {fits}", flush=True
            )


if __name__ == "__main__":
    main()
