"""What rows are made of -> the folder where they are kept; another cause, another folder."""

import hashlib
import inspect
import json
import logging
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmft.config import user_path
from llmft.encoding import Codec
from llmft.errors import UserError
from llmft.models.cache import cache_root, cached_folder

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
            self.kept = tempfile.TemporaryDirectory(prefix="llmft-")
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
