"""Whether Liger's kernels can run: the package and the build of torch, with the reason if they cannot."""

from importlib.util import find_spec

import torch

PACKAGE = "liger_kernel"


def unavailable() -> str | None:
    """Why Liger's kernels cannot run with the packages of this machine; None if they can."""
    if find_spec(PACKAGE) is None:
        return "liger-kernel is not installed (pip install 'llmft[liger]')"
    if torch.version.hip:
        return "they are not tested on ROCm"
    return None
