"""The folder where examples and encoded rows are cached, keyed by everything that they depend on."""

import hashlib
import inspect
import json
import logging
import sys
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmft.data.tokenization.codec import Codec
from llmft.data.tokenization.source import clock_now
from llmft.utils.cache import cache_root, cached_folder
from llmft.utils.errors import UserError
from llmft.utils.logging import FILE_ONLY
from llmft.utils.paths import user_path
from llmft.utils.temporary import TemporaryFolder

log = logging.getLogger(__name__)
OWN = "llmft.data"
LIBRARIES = ("transformers", "tokenizers", "jinja2", "pyarrow", "datasets")
OFF = ("off", False)


class Cache:
    """Folders under ``data.cache``; with ``off``, under a temporary folder of this process.

    A folder is filled under another name behind a lock and renamed when it is complete (``utils.cache``), so that neither a
    killed nor a concurrent process leaves or sees an incomplete one.

    Args:
        where: ``data.cache``: ``off``, a folder, or None for llmft's own cache.
    """

    def __init__(self, where: str | bool | None) -> None:
        self.where = where

    @cached_property
    def root(self) -> Path:
        """The folder of all folders."""
        if self.where in OFF:
            self._temporary = TemporaryFolder()
            return Path(self._temporary.name)
        return user_path(self.where) if isinstance(self.where, str) else cache_root() / "data"

    def folder(self, name: str, key: str, build: Callable[[Path], None]) -> Path:
        """The folder of a key, filled by ``build`` unless it exists.

        Raises:
            UserError: The cache cannot be written.
        """
        built: list[Path] = []

        def counted(folder: Path) -> None:
            build(folder)
            built.append(folder)

        try:
            self.root.mkdir(parents=True, exist_ok=True)
            found = cached_folder(f"{name}-{key}", counted, self.root, durable=self.where not in OFF)
        except OSError as error:
            raise UserError(
                f"data.cache={self.root}: cannot be used ({error}); data.cache=DIR or data.cache=off"
            ) from None
        if not built:
            log.info("cache: %s are there already: %s", name, found, extra=FILE_ONLY)
        return found


def key_of(**parts: Any) -> str:
    """A digest of these values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def code_fingerprint(cls: type) -> dict[str, str]:
    """Digests of the code that the examples of a data set depend on: ``llmft.data``, and the package of a class from outside."""
    package = cls.__module__.partition(".")[0]
    return {root: _digest(root, cls) for root in {OWN, OWN if package == "llmft" else package}}


def _digest(root: str, cls: type) -> str:
    """SHA-256 of the source files of a package, or of the one module of a class."""
    package = getattr(sys.modules.get(root), "__path__", None)
    files = sorted(Path(package[0]).rglob("*.py")) if package else [Path(inspect.getsourcefile(cls) or "")]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\n".encode())
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _sentencepieces(tokenizer: Any) -> list[Any]:
    """The SentencePiece models of a tokenizer in Python (M2M100, Marian), which its vocabulary does not show."""
    found = (getattr(tokenizer, name, None) for name in ("sp_model", "spm_source", "spm_target"))
    return [model for model in found if model is not None]


def codec_key(codec: Codec) -> dict[str, Any]:
    """Everything that a codec's ids depend on: tokenizer, template, trained parts, and the versions of the libraries."""
    tokenizer = codec.tokenizer
    whole = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
    return {
        "tokenizer": hashlib.sha256(str(whole).encode()).hexdigest(),
        "pieces": [hashlib.sha256(model.serialized_model_proto()).hexdigest() for model in _sentencepieces(tokenizer)],
        "class": type(tokenizer).__name__,
        "target": codec.target_frame,  # the target language of NLLB is in the labels alone
        "special": {name: str(value) for name, value in tokenizer.special_tokens_map.items()},
        "template": [codec.template.saved, codec.template.controls, codec.template.variables],
        "clock": clock_now(str(codec.template.saved)),
        "codec": [type(codec).__name__, codec.train_on, codec.train_on_turns, codec.template.reasoning, codec.stop_ids],
        "versions": {name: version(name) for name in LIBRARIES},
    }
