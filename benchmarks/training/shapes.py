"""Models with published shapes and random weights, and a tokenizer trained on the data: no download needed."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from llmft.data.sources import find
from llmft.models.backbone import tiny


@dataclass(frozen=True)
class Shape:
    """Numbers of a published ``config.json``.

    Attributes:
        option: The option of llmft's ``model`` group that it replaces.
        config: The transformers config class and its arguments.
        auto_class: The transformers auto class.
        dtype: Dtype of its weights on disk, and frozen.
    """

    option: str
    config: tuple[str, dict[str, Any]]
    auto_class: str = "AutoModelForCausalLM"
    dtype: str = "float32"


# T5 initializes its head with standard deviation 1, which gives a loss of 170; a twentieth gives that of a uniform guess
SHAPES = {
    "flan_t5_small_shape": Shape(
        "flan_t5_small",
        ("T5Config", {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
                      "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0,
                      "initializer_factor": 0.05}),
        "AutoModelForSeq2SeqLM",
    ),
    "gpt2_medium_shape": Shape(
        "gpt2_medium",
        ("GPT2Config", {"vocab_size": 50257, "n_positions": 1024, "n_embd": 1024, "n_layer": 24, "n_head": 16}),
    ),
    "tinyllama_shape": Shape(
        "tinyllama_1_1b_chat",
        ("LlamaConfig", {"vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
                         "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048}),
    ),
    # for rehearsals on a CPU
    "tiny_shape": Shape(
        "tinyllama_1_1b_chat",
        ("LlamaConfig", {"vocab_size": 8000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192}),
    ),
    # Llama 3 8B; without its name, so that no license is asked for
    "llama3_8b_shape": Shape(
        "tinyllama_1_1b_chat",
        ("LlamaConfig", {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                         "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192}),
        dtype="bfloat16",
    ),
}  # fmt: skip
# At most; fewer for few rows, of which a larger vocabulary would hold whole ones: with 1,500 a token of the shipped samples has 4 characters.
PIECES = 8000


def build(name: str, data: str, path: str, folder: Path) -> Path:
    """Write config, weights and tokenizer of a shape, once per folder.

    Args:
        name: A key of ``SHAPES``.
        data: The data set that the tokenizer is trained on.
        path: Path of its rows.
        folder: Output folder; the model gets a subfolder, which is there only when it is complete.
    """
    shape, place = SHAPES[name], folder / f"{name}-{data}"
    if place.is_dir():
        return place
    is_t5 = shape.option.startswith("flan_t5")
    roles = {"pad_token": "<pad>", "eos_token": "</s>"} | ({} if is_t5 else {"bos_token": "<s>"})
    tokenizer = tiny.byte_tokenizer(roles, ends_with_eos=is_t5)
    pieces = min(PIECES, max(1500, sum(len(text) for text in _texts(data, path)) // 20))
    trained = tokenizer.train_new_from_iterator(_texts(data, path), pieces, show_progress=False)
    kind, numbers = shape.config
    config = getattr(transformers, kind)(
        **numbers, pad_token_id=trained.pad_token_id, eos_token_id=trained.eos_token_id
    )
    # on the GPU where there is one: 8 billion random numbers take a CPU minutes
    with torch.random.fork_rng(devices=[]), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(tiny.INIT_SEED)
        model = getattr(transformers, shape.auto_class).from_config(config, dtype=getattr(torch, shape.dtype))
    unfinished = place.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    trained.save_pretrained(unfinished)
    unfinished.rename(place)
    del model
    torch.cuda.empty_cache()  # the sides need the memory
    return place


def read(file: Path) -> Sequence[dict[str, Any]]:
    """The rows of a JSON list or of JSON lines."""
    text = file.read_text(encoding="utf-8")
    return json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in text.split("\n") if x.strip()]


def _texts(data: str, path: str) -> Iterator[str]:
    for row in read(find(path, data).parts[0].file):
        yield from (str(value) for value in row.values())
