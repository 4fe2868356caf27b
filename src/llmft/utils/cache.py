"""Folders that are made once and kept: tiny models, and GGUF files converted to safetensors."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def cache_root() -> Path:
    """``$LLMFT_CACHE``, else ``llmft`` in ``$XDG_CACHE_HOME``, else ``~/.cache/llmft``."""
    given = os.environ.get("LLMFT_CACHE")
    return (
        Path(given).expanduser()
        if given
        else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llmft"
    )


def cached_folder(name: str, build: Callable[[Path], None], root: Path | None = None) -> Path:
    """The folder ``name`` of the cache (or of ``root``); ``build`` fills it if it is not there.

    It is filled under another name and renamed when whole, behind a lock, so that neither a kill nor a second process
    leaves or sees half a folder. What a killed process left of it is removed by the next that fills it.
    """
    root = root or cache_root()
    folder = root / name
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{name}.lock"):
        if not folder.is_dir():
            for left in root.iterdir():
                if left.name.startswith(f"{name}.tmp-"):
                    shutil.rmtree(left, ignore_errors=True)
            unfinished = Path(tempfile.mkdtemp(prefix=f"{name}.tmp-", dir=root))
            try:
                build(unfinished)
                unfinished.chmod(0o755)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder
