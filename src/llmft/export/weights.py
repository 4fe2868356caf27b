"""Write a run's weights for export: the adapter, or full weights with the adapter merged."""

import json
import shutil
from pathlib import Path
from typing import Any

from llmft.config.schema import TrainConfig
from llmft.models.backbone import transformers4
from llmft.models.backbone.open import TrainedBackbone

# Files that the export rewrites; all others in model/ (tokenizer, chat template, generation config) are copied.
REWRITTEN_FILES = ("README.md", "config.json", "adapter_config.json", "model.safetensors.index.json")
FULL_PRECISION = {"model.dtype": "float32", "model.gradient_checkpointing": False}


def load_full_precision(folder: Path, cfg: TrainConfig) -> TrainedBackbone:
    """The trained model in float32; an adapter on its published base, never on a quantized one.

    Args:
        folder: The run's ``model/``.
        cfg: The run's config.
    """
    quantized = {"peft.quantise": None} if cfg.select("peft.quantise") else {}
    return TrainedBackbone(folder, cfg.replaced(FULL_PRECISION | quantized))


def write_merged(model: Any, source: Path, folder: Path, shard_size: str) -> None:
    """Write full weights, which need neither peft nor the base, in shards of at most ``shard_size`` (e.g. ``4GB``)."""
    from transformers import GenerationConfig

    merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    merged.generation_config = GenerationConfig.from_pretrained(source)
    transformers4.save_model(merged, folder, max_shard_size=shard_size)
    _copy_rest(source, folder)


def write_adapter(source: Path, folder: Path, base: str | None, revision: str | None) -> None:
    """Write the adapter, with the public name of its base model in its config.

    Args:
        source: The run's ``model/``.
        folder: The target folder.
        base: Hub id of the base model; None for a local base, whose path is meaningless elsewhere.
        revision: Revision of the base model.
    """
    shutil.copy(source / "adapter_model.safetensors", folder)
    config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base, "revision": revision}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _copy_rest(source, folder)


def _copy_rest(source: Path, folder: Path) -> None:
    for file in source.iterdir():
        if file.is_file() and file.name not in REWRITTEN_FILES and file.suffix != ".safetensors":
            shutil.copy(file, folder)
    transformers4.rewrite_tokenizer_config(folder)
