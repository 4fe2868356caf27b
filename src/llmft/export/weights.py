"""A run's ``model/`` -> a folder with the weights as others load them: the adapter alone, or merged into its base."""

import json
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.models.backbone.open import TrainedBackbone

# What is written anew; everything else in model/ (tokenizer, chat template, generation config) goes along as it is.
OURS = ("README.md", "config.json", "adapter_config.json", "model.safetensors.index.json")
FULL_PRECISION = {"model": {"dtype": "float32", "gradient_checkpointing": False}, "peft": {"quantise": None}}


def full_precision(folder: Path, cfg: DictConfig) -> TrainedBackbone:
    """The trained model in float32; an adapter is on its base as that was published, never on a quantized one.

    Args:
        folder: The run's ``model/``.
        cfg: The run's config.
    """
    return TrainedBackbone(folder, OmegaConf.merge(cfg, FULL_PRECISION))


def write_merged(model: Any, source: Path, folder: Path, shard_size: str) -> None:
    """The whole weights, which need neither peft nor the base; in files of at most ``shard_size`` (e.g. ``4GB``)."""
    from transformers import GenerationConfig

    merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    merged.generation_config = GenerationConfig.from_pretrained(source)
    merged.save_pretrained(folder, max_shard_size=shard_size)
    _copy_rest(source, folder)


def write_adapter(source: Path, folder: Path, base: str | None, revision: str | None) -> None:
    """The adapter as it was trained, naming its base as others can find it.

    Args:
        source: The run's ``model/``.
        folder: Where it goes.
        base: Hub id of the base model; None where the base was a file of this machine, whose path says nothing to others.
        revision: Of the base.
    """
    shutil.copy(source / "adapter_model.safetensors", folder)
    config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base, "revision": revision}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _copy_rest(source, folder)


def _copy_rest(source: Path, folder: Path) -> None:
    for file in source.iterdir():
        if file.is_file() and file.name not in OURS and file.suffix != ".safetensors":
            shutil.copy(file, folder)
