"""``form=merged``: full weights, which need neither peft nor the base, as safetensors."""

import json
from pathlib import Path
from typing import Any

from llmft.export.forms.source import copy_rest
from llmft.models.backbone import transformers4


def write(model: Any, source: Path, folder: Path, dtype: str, shard_size: str) -> Any:
    """Write a trained model with its adapter merged.

    Args:
        model: The trained model in float32, in memory; merged in place.
        source: ``model/`` of the run.
        folder: The target folder.
        dtype: Of the written weights.
        shard_size: Maximum size of a weight file, e.g. ``4GB``.

    Returns:
        The merged model, in ``dtype``.
    """
    from transformers import GenerationConfig

    merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    merged.generation_config = GenerationConfig.from_pretrained(source)
    _round(merged, dtype)
    transformers4.save_model(merged, folder, max_shard_size=shard_size)
    copy_rest(source, folder)
    return merged


def _round(model: Any, dtype: str) -> None:
    """Round what is written to a dtype, in place.

    ``model.to`` would round rotary frequencies too, which are in no file: whoever loads the weights computes them in float32.
    """
    import torch

    written = model.state_dict().keys()
    buffers = (buffer for name, buffer in model.named_buffers() if name in written and buffer.is_floating_point())
    for tensor in (*model.parameters(), *buffers):
        tensor.data = tensor.data.to(getattr(torch, dtype))


def tie_fault(folder: Path) -> str | None:
    """What is wrong with ``tie_word_embeddings`` in ``config.json``; None if it says what the files hold.

    transformers 5 keeps a head that it finds in the files whatever the flag says, transformers 4 and converters obey it.
    """
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as found:
            for name in found.keys():  # noqa: SIM118 (no dict)
                if name in HEADS or name in EMBEDDINGS:
                    tensors[name] = found.get_tensor(name)
    heads = [tensors[name] for name in HEADS if name in tensors]
    embeddings = [tensors[name] for name in EMBEDDINGS if name in tensors]
    flag = config.get("tie_word_embeddings", True)
    if flag and heads and not any(head.equal(other) for head in heads for other in embeddings):
        return "tie_word_embeddings is not false, but the files hold a head of their own"
    if not flag and embeddings and not heads:
        return "tie_word_embeddings is false, but the files hold no head"
    return None


# Names of the head and of the embeddings in the files of GPT-2, T5, BART and the Llama-likes.
HEADS = ("lm_head.weight", "lm_head.out_proj.weight")
EMBEDDINGS = (
    "transformer.wte.weight", "wte.weight", "shared.weight", "model.shared.weight", "model.embed_tokens.weight",
    "decoder.embed_tokens.weight", "model.decoder.embed_tokens.weight",
)  # fmt: skip
