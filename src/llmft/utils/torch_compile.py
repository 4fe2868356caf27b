"""Whether ``torch.compile`` can run: Python, and the compilers that it calls, with the reason if it cannot."""

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path


def unavailable(device: str) -> str | None:
    """Why ``torch.compile`` cannot run on this machine; None if nothing is missing.

    Args:
        device: ``cuda``, ``cpu`` or ``mps``.
    """
    from torch._dynamo.eval_frame import is_dynamo_supported  # takes two seconds

    if device == "mps":
        return "it was not tried on an Apple GPU"
    if not is_dynamo_supported():
        return f"torch.compile does not run on {sys.platform} with Python {sys.version.split()[0]}"
    if device == "cuda" and find_spec("triton") is None:
        return "Triton, which torch.compile needs on a GPU, is not installed (pip install triton)"
    if (compiler := _missing_compiler(device)) is not None:
        return f"torch.compile needs the compiler {compiler}, which is not on the PATH (apt-get install g++)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "torch.compile needs Python.h, the header of Python (apt-get install python3-dev)"
    return None


def _missing_compiler(device: str) -> str | None:
    """The compiler that torch on a CPU, or Triton on a GPU, would call, if it is not there."""
    if device == "cuda":
        names = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
    else:
        names = [os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")]
    return None if any(map(shutil.which, names)) else " or ".join(names)
