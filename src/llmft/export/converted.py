"""A model in CTranslate2's format in the cache, for ``serve.engine=ctranslate2``: converted once, in float32."""

import logging
import tempfile
from collections.abc import Iterable
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmft.config.schema import RunOrModel
from llmft.config.schema.generation import Generation
from llmft.data.tokenization.codec import Codec
from llmft.export.forms import ctranslate2, merged
from llmft.export.forms.source import unquantized
from llmft.generation.ctranslate2_decoder import open_converted
from llmft.generation.generator import Generator
from llmft.generation.load import check_overrides, load_streaming, own_generation
from llmft.generation.settings import generation_config
from llmft.models.backbone.open import Backbone, TrainedBackbone
from llmft.runs.open import open_run
from llmft.runtimes.exported import TORCH_FORMS, ExportedBackbone, open_exported
from llmft.utils.cache import cached_folder

log = logging.getLogger(__name__)
LAYOUT = 1  # of the cached folders; a change of it converts again


def load_converted(cfg: RunOrModel) -> tuple[Generator, str | None]:
    """The model of ``run=RUN`` with the system prompt of its data set, or a plain ``model=``, decoded by CTranslate2.

    Raises:
        UserError: CTranslate2 is not installed or does not have the architecture, or the run has no model.
    """
    if cfg.run is None:
        return _load(Backbone.open(cfg), cfg.generation), None
    if exported := open_exported(cfg.run):
        if exported.form not in TORCH_FORMS:
            return load_streaming(cfg)
        check_overrides()
        own = own_generation(cfg.generation, exported.generation)
        return _load(ExportedBackbone(exported), own, exported.folder), exported.system
    check_overrides()
    folder, trained = open_run(cfg.run)
    backbone = TrainedBackbone(folder / "model", unquantized(trained))
    own = own_generation(cfg.generation, trained.generation)
    return _load(backbone, own, folder / "model"), trained.data.system


def _load(backbone: Backbone, generation: Generation, *folders: Path) -> Generator:
    ctranslate2.check(backbone.config)

    def build(folder: Path) -> None:
        log.info("converting the model for CTranslate2; the next start takes it from the cache")
        convert(backbone.load(), backbone.codec, folder)

    cached = cached_folder(f"ctranslate2-{_digest(backbone, folders)}", build)
    return open_converted(cached, backbone.codec, generation.node())


def convert(model: Any, codec: Codec, folder: Path) -> None:
    """Convert a model in memory, in float32.

    Args:
        model: A transformers or peft model; an adapter is merged in place.
        codec: Its tokenizer and prompt template.
        folder: An empty folder.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        tokenizer, weights = Path(scratch) / "tokenizer", Path(scratch) / "weights"
        generation_config(model, codec, {}).save_pretrained(tokenizer)
        codec.tokenizer.save_pretrained(tokenizer)
        merged.write(model, tokenizer, weights, "float32", "4GB")
        ctranslate2.convert(weights, folder)


def _digest(backbone: Backbone, folders: Iterable[Path]) -> str:
    """What tells the weights apart: names, sizes and times of the files of the model and of an adapter's base."""
    found = [LAYOUT, version("ctranslate2"), backbone.path, backbone.model.revision]
    for file in (
        file for folder in (Path(backbone.path), *folders) if folder.is_dir() for file in sorted(folder.iterdir())
    ):
        if file.suffix in (".safetensors", ".json"):
            found += [str(file), file.stat().st_size, file.stat().st_mtime_ns]
    return sha256(repr(found).encode()).hexdigest()[:16]
