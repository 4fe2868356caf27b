"""GPUs are hidden from the tests: numbers are promised for a CPU, and a GPU may be busy."""

import os

from _pytest.mark.expression import Expression

# CUDA and ROCm read which GPUs to see, Lightning whether `accelerator: auto` may take MPS.
HIDDEN = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "DISABLE_MPS": "1"}
OTHERS = ("slow", "network", "real")


def is_gpu_asked_for(marks: str) -> bool:
    """Whether an expression of ``pytest -m`` selects a test because of its mark ``gpu``."""
    if not marks:
        return False
    chosen = Expression.compile(marks)

    def selects(*have: str) -> bool:
        return chosen.evaluate(lambda name, **_: name in have)

    return any(selects(*have, "gpu") and not selects(*have) for have in ((), OTHERS))


def hide_gpus(marks: str) -> None:
    """Hide all GPUs from this process and those that it starts, unless ``-m`` asks for tests on a GPU; before CUDA is used."""
    if not is_gpu_asked_for(marks):
        os.environ.update(HIDDEN)
