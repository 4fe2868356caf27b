"""What rows are made of -> the folder where they are kept; another cause, another folder."""

import fcntl
import hashlib
import inspect
import json
import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmft.data.tokenization.codec import Codec
from llmft.utils.cache import cache_root, cached_folder
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path

log = logging.getLogger(__name__)
LIBRARIES = ("transformers", "tokenizers", "jinja2", "pyarrow", "datasets")


class Cache:
    """Folders under ``data.cache``; with ``off`` they are the process's own, and gone with it.

    A folder is filled under another name behind a lock and renamed when it is whole (``models.cache``), so that a kill or a
    second process neither leaves nor sees half of one.
    """

    def __init__(self, where: str | bool | None) -> None:
        self.root: Path | None = None
        if where in ("off", False):
            self.kept = Temporary()
        else:
            self.root = user_path(where) if isinstance(where, str) else cache_root() / "data"

    def folder(self, name: str, key: str, build: Callable[[Path], None]) -> Path:
        """The folder of a key, filled by ``build`` unless it is there.

        Raises:
            UserError: The cache's folder cannot be written.
        """
        built: list[Path] = []

        def counted(folder: Path) -> None:
            build(folder)
            built.append(folder)

        root = self.root or Path(self.kept.name)
        try:
            root.mkdir(parents=True, exist_ok=True)
            found = cached_folder(f"{name}-{key}", counted, root)
        except OSError as error:
            raise UserError(f"data.cache={root}: cannot be used ({error}); data.cache=DIR or data.cache=off") from None
        if not built:
            log.info("cache: %s are there already: %s", name, found)
        return found


class Temporary(tempfile.TemporaryDirectory):
    """A folder that is gone with its process: what killed processes left of theirs is removed when the next one is made.

    The lock in it is one of the open file, so that a second folder of the same process is safe, and workers keep it.
    """

    def __init__(self) -> None:
        super().__init__(prefix="llmft-")
        remove_left()
        folder = Path(self.name)
        unfinished = folder / "unfinished"
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_EX)
        unfinished.rename(folder / "in_use")  # no other process sees it without its lock


def remove_left() -> None:
    """Remove the temporary folders of processes that are gone."""
    for other in Path(tempfile.gettempdir()).glob("llmft-*/in_use"):
        _remove_if_left(other)


def _remove_if_left(in_use: Path) -> None:
    try:
        if in_use.lstat().st_uid != os.getuid():
            return
        with in_use.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(in_use.parent, ignore_errors=True)
    except OSError:
        pass  # it is in use, or has just gone


def key_of(**parts: Any) -> str:
    """A digest of everything that these values say."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def meaning_of(cls: type) -> dict[str, str]:
    """Digests of the code that says what a row means: llmft itself, and the package of a class from outside."""
    roots = {cls.__module__.partition(".")[0] for cls in cls.__mro__ if cls.__module__ != "builtins"}
    return {
        root: _code(root, cls) for root in sorted(roots) if root == "llmft" or root == cls.__module__.partition(".")[0]
    }


def _code(root: str, cls: type) -> str:
    import sys

    digest = hashlib.sha256()
    package = getattr(sys.modules.get(root), "__path__", None)
    files = (
        [Path(inspect.getsourcefile(cls) or "")] if package is None else sorted(Path(next(iter(package))).rglob("*.py"))
    )
    for file in files:
        digest.update(f"{file.name}\n".encode())
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def codec_key(codec: Codec) -> dict[str, Any]:
    """What of a codec decides the ids: tokenizer, template, what is trained, and the libraries' versions."""
    tokenizer = codec.tokenizer
    whole = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
    return {
        "tokenizer": hashlib.sha256(str(whole).encode()).hexdigest(),
        "class": type(tokenizer).__name__,
        "special": {name: str(value) for name, value in tokenizer.special_tokens_map.items()},
        "template": [codec.template.source, codec.template.controls, codec.template.variables],
        "codec": [type(codec).__name__, codec.train_on, codec.train_on_turns, codec.stop_id],
        "versions": {name: version(name) for name in LIBRARIES},
    }
