"""Open an exported folder in the runtime that it is for."""

from pathlib import Path

from llmft.runtimes import llama_cpp, onnx
from llmft.runtimes.runtime import FORMS, Form, Runtime
from llmft.utils.errors import UserError


def form_of(folder: Path) -> Form:
    """The form of an exported folder, by the files that it holds.

    Raises:
        UserError: It holds no model.
    """
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if (folder / "model.bin").is_file():
        return "ctranslate2"
    if any(folder.glob("*.gguf")):
        return "gguf"
    if any(folder.glob("*.onnx")) or (folder / "genai_config.json").is_file():
        return "onnx"
    if (folder / "config.json").is_file():
        return "merged"
    raise UserError(f"{folder}: holds no exported model of the forms {', '.join(FORMS)}")


def open_runtime(folder: Path, *, dtype: str = "auto", base: str | None = None, revision: str | None = None) -> Runtime:
    """Open an exported folder in the runtime that it is for.

    Args:
        folder: An exported folder, also one from somebody else: no code of its own is run.
        dtype: dtype to compute in, where the runtime has a choice: ``auto`` is that of the weights.
        base: Folder or Hub id of an adapter's base model; None takes the one that its config names.
        revision: Revision of the base on the Hub.

    Raises:
        NotInstalledError: The runtime is not installed.
        UserError: The folder holds no model, or the runtime refuses it.
    """
    match form_of(folder):
        case "merged" | "adapter":
            from llmft.runtimes.pytorch import open_folder  # imports torch

            return open_folder(folder, dtype=dtype, base=base, revision=revision)
        case "ctranslate2":
            from llmft.runtimes.ctranslate2 import CTranslate2Runtime  # imports torch

            return CTranslate2Runtime(folder)
        case "gguf":
            return llama_cpp.open_folder(folder, dtype=dtype)
        case "onnx":
            return onnx.open_folder(folder)
