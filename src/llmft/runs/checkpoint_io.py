"""Checkpoints: written atomically, loaded without unpickling code."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from llmft.utils.errors import UserError, chain
from llmft.utils.files import atomic_open
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
            final.parent.mkdir(parents=True, exist_ok=True)
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
        UserError: It is damaged, or holds anything but tensors and plain values.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # zip, pickle and system errors have no common base
        raise UserError(f"{file}: not a checkpoint that can be used ({first_line(error)})") from None


def _reason(error: BaseException) -> str:
    """The system's error message, which torch hides behind an error of its own."""
    found = next((cause for cause in chain(error) if isinstance(cause, OSError)), None)
    return found.strerror if found and found.strerror else first_line(error)
