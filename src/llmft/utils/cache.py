"""Cached folders, built once: tiny models, GGUF files converted to safetensors, preprocessed data sets."""

import os
from collections.abc import Callable
from pathlib import Path

from llmft.utils.errors import UserError
from llmft.utils.files import atomic_folder
from llmft.utils.paths import user_path


def cache_root() -> Path:
    """``$LLMFT_CACHE``, else ``llmft`` in ``$XDG_CACHE_HOME``, else ``~/.cache/llmft``.

    Raises:
        UserError: There is no home directory (a container's user without a name and without ``HOME``).
    """
    own = os.environ.get("LLMFT_CACHE")
    try:
        return user_path(own) if own else user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "llmft"
    except UserError as error:
        raise UserError(f"no folder for the cache: {error}; set LLMFT_CACHE=DIR in the environment") from None


def cached_folder(name: str, build: Callable[[Path], None], root: Path | None = None, *, durable: bool = True) -> Path:
    """The folder ``name`` in the cache; ``build`` fills it if it is not there.

    A lock and ``atomic_folder`` make sure that no other process sees it incomplete, and that a killed process leaves no part of
    it that the next build does not remove.

    Args:
        name: Of the folder.
        build: Called with the folder to fill.
        root: In place of ``cache_root()``.
        durable: Flush it to the disk, for a folder that outlives this process.

    Raises:
        UserError: ``cache_root()`` cannot be made.
    """
    root = root or cache_root()
    folder = root / name
    if folder.is_dir():
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"cannot be made ({error.strerror})"
        raise UserError(f"{root}: the cache {why}; set LLMFT_CACHE=DIR in the environment") from None
    from filelock import FileLock  # start-up time: the completion needs cache_root alone

    with FileLock(root / f"{name}.lock"):
        if not folder.is_dir():
            with atomic_folder(folder, durable=durable) as unfinished:
                build(unfinished)
    return folder
