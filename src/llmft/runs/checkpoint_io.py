"""A checkpoint -> a file that is whole or not there, and back without running anything that it holds."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from llmft.utils.errors import UserError, chain
from llmft.utils.text import first_line


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written to a temporary name, flushed to the disk, then renamed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write, or leave what was there.

        Raises:
            UserError: The disk is full, or the folder cannot be written to.
        """
        final = Path(path)
        unfinished = final.with_suffix(".tmp")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(final)
            sync_folder(final.parent)
        except (OSError, RuntimeError) as error:  # torch wraps some of the system's errors
            _remove(unfinished)
            kept = "the one before it is kept" if final.exists() else "there is none before it"
            reason = _reason(error)
            raise UserError(
                f"{final}: the checkpoint of step {checkpoint.get('global_step')} could not be written ({reason}); {kept}. "
                f"Make room and go on with resume={final.parent.parent}"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a file of tensors and plain values; anything else in it is refused."""
        return load(Path(path))


def load(file: Path) -> dict[str, Any]:
    """A checkpoint, mapped into memory.

    Raises:
        UserError: It is damaged, or holds something else than tensors and plain values.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # zip, pickle and system errors have no common base
        raise UserError(f"{file}: not a checkpoint that can be used ({first_line(error)})") from None


def link(file: Path, name: Path) -> None:
    """Give a whole file a second name, at once and without a copy where the file system can."""
    if name.exists() and name.samefile(file):
        return  # rename(2) does nothing then, and leaves the temporary name
    unfinished = name.with_suffix(".tmp")
    _remove(unfinished)
    try:
        os.link(file, unfinished)
    except OSError:
        import shutil

        shutil.copyfile(file, unfinished)
    unfinished.replace(name)
    sync_folder(name.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: BaseException) -> str:
    """What the system said, which torch hides behind an error of its own."""
    found = next((cause for cause in chain(error) if isinstance(cause, OSError)), None)
    return found.strerror if found and found.strerror else first_line(error)


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)
