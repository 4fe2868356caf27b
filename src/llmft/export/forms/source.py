"""``Source``: what every form of an export is written from."""

import shutil
from pathlib import Path
from typing import NamedTuple

from llmft.config.schema import ExportConfig, TrainConfig
from llmft.models.backbone import transformers4


class Source(NamedTuple):
    """A trained model on disk.

    Attributes:
        model: ``model/`` of the run: all weights, or the adapter; tokenizer, chat template, generation config.
        merged: A folder with full weights in ``dtype``, as ``form=merged`` writes it; None if no form needs it.
        dtype: ``float32``, ``bfloat16`` or ``float16``; what ``dtype=auto`` resolved to.
        cfg: The run's config.
        settings: The keys of ``export``.
    """

    model: Path
    merged: Path | None
    dtype: str
    cfg: TrainConfig
    settings: ExportConfig


def unquantized(cfg: TrainConfig, dtype: str = "float32") -> TrainConfig:
    """A run's config that loads its model in a dtype; an adapter goes on its published base, never on a quantized one."""
    quantized = {"peft.quantise": None} if cfg.select("peft.quantise") else {}
    return cfg.replaced(
        {"model.dtype": dtype, "model.gradient_checkpointing": False, "model.activation_offload": False} | quantized
    )


# Files of model/ that a form writes itself; all others (tokenizer, chat template, generation config) are copied.
REWRITTEN_FILES = ("README.md", "config.json", "adapter_config.json", "model.safetensors.index.json")


def copy_rest(model: Path, folder: Path) -> None:
    """Copy the files of ``model/`` besides its weights and configs."""
    for file in sorted(model.iterdir()):
        if file.is_file() and file.name not in REWRITTEN_FILES and file.suffix != ".safetensors":
            shutil.copy(file, folder)
    transformers4.rewrite_tokenizer_config(folder)
