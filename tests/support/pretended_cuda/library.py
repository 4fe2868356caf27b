"""The compiled part: ``device.cpp``, made by g++ in seconds, once for each torch and source."""

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")


def why_not() -> str | None:
    """Why it cannot be compiled here; None if it can."""
    return None if shutil.which("g++") else "device.cpp is compiled with g++, and there is none"


def load() -> None:
    """Compile and load it.

    Raises:
        RuntimeError: torch was imported before: it looks for CUDA when it is loaded.
    """
    import sys

    if "torch" in sys.modules:
        raise RuntimeError("torch was imported before the pretended device")
    ctypes.CDLL(str(compiled()))


def compiled() -> Path:
    """The shared library, in a folder for temporary files that later processes find again."""
    version = importlib.metadata.version("torch")
    key = hashlib.sha256(SOURCE.read_bytes() + version.encode()).hexdigest()[:16]
    file = Path(tempfile.gettempdir()) / f"llmft-pretended-cuda-{os.getuid()}" / f"{key}.so"
    if not file.is_file():
        file.parent.mkdir(mode=0o700, exist_ok=True)
        own = file.with_suffix(f".{os.getpid()}")
        subprocess.run(command(own), check=True)
        own.replace(file)
    return file


def command(file: Path) -> list[str]:
    """The compiler's command line for a shared library ``file``."""
    found = importlib.util.find_spec("torch")
    torch = Path(str(found and found.origin)).parent
    paths = [f"-I{torch / 'include'}", f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}"]
    return [
        "g++",
        "-std=c++20",
        "-O0",
        "-shared",
        "-fPIC",
        str(SOURCE),
        "-o",
        str(file),
        *paths,
        "-ltorch_cpu",
        "-lc10",
    ]
