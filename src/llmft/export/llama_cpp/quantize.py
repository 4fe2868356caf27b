"""Quantize the weights of a GGUF file with llama.cpp, through llama-cpp-python."""

import ctypes
from pathlib import Path

from llmft.runtimes.llama_cpp import library, reason
from llmft.utils.errors import UserError


def quantize(source: Path, file: Path, kind: str) -> None:
    """Write a copy of a GGUF file with quantized weights.

    Args:
        source: With weights in float32, bfloat16 or float16.
        file: The file to write.
        kind: Name of the quantization, such as ``q4_k_m``.

    Raises:
        NotInstalledError: llama-cpp-python is not installed.
        UserError: llama.cpp refuses it: K quantizations need rows of a multiple of 256 weights, others of 32.
    """
    llama = library()
    settings = llama.llama_model_quantize_default_params()
    settings.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    if llama.llama_model_quantize(str(source).encode(), str(file).encode(), ctypes.byref(settings)):
        raise UserError(f"quantize={kind}: llama.cpp refuses this model{reason()}; q8_0 suits most shapes")
