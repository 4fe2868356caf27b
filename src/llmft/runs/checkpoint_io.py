"""Checkpoints: written atomically, loaded without unpickling code."""

import errno
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from llmft.utils.errors import UserError, chain
from llmft.utils.files import atomic_open, durable_folder
from llmft.utils.shell import argument
from llmft.utils.text import first_line


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written with ``atomic_open``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; after an error the previous one is untouched.

        Raises:
            UserError: The disk is full, or the folder cannot be written to.
        """
        final = Path(path)
        try:
            if not final.parent.is_dir():
                durable_folder(final.parent)
            with atomic_open(final, "wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch wraps some of the system's errors
            kept = "the previous one is kept" if final.exists() else "there is no earlier one"
            raise UserError(
                f"{final}: the checkpoint of step {checkpoint.get('global_step')} could not be written ({_reason(error)}); "
                f"{kept}. Free some space and continue with {argument('resume', str(final.parent.parent))}"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """As ``load``."""
        return load(Path(path))


def load(file: Path) -> dict[str, Any]:
    """Load a checkpoint, memory-mapped, on the CPU.

    Raises:
        UserError: As ``load_plain``, or it has no ``global_step`` and ``state_dict``.
    """
    found = load_plain(file, mmap=True)
    if not isinstance(found.get("global_step"), int) or not isinstance(found.get("state_dict"), dict):
        raise UserError(f"{file}: cannot be used: global_step or state_dict is missing")
    return found


def load_plain(file: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Load a dict that ``torch.save`` wrote, on the CPU.

    Raises:
        UserError: It is damaged, or holds anything but tensors and plain values.
    """
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # zip, pickle and system errors have no common base
        raise UserError(f"{file}: cannot be used: {_unusable(file, error)}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: cannot be used: it must hold a dict")
    return found


def _unusable(file: Path, error: Exception) -> str:
    """Why a file cannot be loaded; torch's own messages advise to load it unsafely."""
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which is torch's, for half a file
        return error.strerror or type(error).__name__
    if not zipfile.is_zipfile(file):
        return "the file is cut off, or was never one"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors and plain values, and loading that could run code"
    return "its content is damaged"


def _reason(error: BaseException) -> str:
    """The system's error message, which torch hides behind an error of its own."""
    found = next((cause for cause in chain(error) if isinstance(cause, OSError)), None)
    return found.strerror if found and found.strerror else first_line(error)
