"""Write a model folder so that transformers 4 reads it as transformers 5 does: tied head, rotary positions, tokenizer class.

transformers 5 saves some settings under new names only, and forces ``tie_word_embeddings`` to true for T5 and its relatives.
transformers 4 (and what reads its names: converters, inference servers) then takes defaults without an error, and the model
answers differently. The keys written here are read by both.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmft.utils.files import atomic_write

# Whether transformers 5 scales the decoder's outputs by d_model ** -0.5 before the head; None: as ``scale_decoder_outputs`` says.
# transformers 4 scales where ``tie_word_embeddings`` is true, and nowhere else.
SCALES = {"t5": None, "longt5": None, "umt5": True, "mt5": False}
# Tokenizer classes of transformers 5 that transformers 4 knows under another name.
TOKENIZER_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
# Those that replace the post-processor of ``tokenizer.json`` in transformers 4, by default with one that adds a BOS.
ADDS_BOS = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer")


def save_model(model: Any, folder: Path, **options: Any) -> None:
    """Save config and weights with ``save_pretrained``, so that transformers 4 computes the same logits.

    Args:
        model: A transformers model with all its weights; no adapter.
        folder: Of the model.
        options: Of ``save_pretrained``.
    """
    output = model.get_output_embeddings()
    if output is None:  # a model with code of its own, which is for its own version of transformers
        model.save_pretrained(folder, **options)
        return
    tied = is_tied(model)
    flag = tied and scales(model.config) is not False
    if tied and not flag:  # transformers 4 reads "no scaling" from an untied head, which must then be in the file
        name = next(name for name, module in model.named_modules() if module is output)
        options["state_dict"] = {**model.state_dict(), f"{name}.weight": output.weight.detach().clone()}
    model.save_pretrained(folder, **options)
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["tie_word_embeddings"] = flag
    for part in (config, *filter(lambda value: isinstance(value, dict), config.values())):
        part |= dict(_rope(part))
    if model.config.attribute_map.get("num_experts") == "num_local_experts":  # Qwen's mixtures of experts
        config["num_experts"] = config["num_local_experts"]
    _write(file, config)


def rewrite_tokenizer_config(folder: Path) -> None:
    """Write the class and the special tokens of a saved tokenizer under the names that transformers 4 and 5 read.

    Args:
        folder: With ``tokenizer_config.json``.
    """
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    kind = config.get("tokenizer_class")
    config["tokenizer_class"] = TOKENIZER_CLASSES.get(kind, kind)
    tokens = config.get("extra_special_tokens")
    if isinstance(tokens, list):  # transformers 4 takes a mapping there, and the list under its old name
        del config["extra_special_tokens"]
        config |= {"additional_special_tokens": tokens} if tokens else {}
    if kind in ADDS_BOS:
        config |= _added_tokens(folder / "tokenizer.json", config)
    _write(file, config)


def _added_tokens(file: Path, config: dict[str, Any]) -> dict[str, bool]:
    """Whether the post-processor of a ``tokenizer.json`` adds the BOS and the EOS to a text."""
    from tokenizers import Tokenizer

    tokens = Tokenizer.from_file(str(file)).encode("a").tokens
    return {
        "add_bos_token": tokens[0] == _content(config.get("bos_token")),
        "add_eos_token": tokens[-1] == _content(config.get("eos_token")),
    }


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def is_tied(model: Any) -> bool:
    """Whether the head shares its weight with an embedding, which a config may state wrongly.

    An embedding of any part: peft compares the head of T5Gemma with the encoder's when it merges, and sets
    ``tie_word_embeddings`` to False, so that the reloaded model has a random head.
    """
    from torch.nn import Embedding

    head = model.get_output_embeddings()
    return any(part.weight is head.weight for part in model.modules() if isinstance(part, Embedding))


def scales(config: Any) -> bool | None:
    """Whether decoder outputs are scaled before the head; None for models that are no relatives of T5."""
    if config.model_type not in SCALES:
        return None
    fixed = SCALES[config.model_type]
    return bool(config.scale_decoder_outputs) if fixed is None else fixed


def _rope(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The older keys for the ``rope_parameters`` of a config."""
    parameters = config.get("rope_parameters") or {}
    if local := parameters.get("sliding_attention"):  # Gemma 3, whose layers have two bases
        yield "rope_local_base_freq", local["rope_theta"]
    parameters = dict(parameters.get("full_attention") or parameters)
    neox = config.get("model_type") in ("gpt_neox", "gpt_neox_japanese")
    if "rope_theta" in parameters:
        yield "rotary_emb_base" if neox else "rope_theta", parameters.pop("rope_theta")
    if (share := parameters.pop("partial_rotary_factor", None)) is not None:
        yield "rotary_pct" if neox else "partial_rotary_factor", share
    kind = parameters.get("rope_type", "default")
    if kind == "longrope" and config.get("model_type") == "phi3":  # which takes these three keys and no other
        yield "rope_scaling", {"type": kind, **{name: parameters[name] for name in ("short_factor", "long_factor")}}
    elif kind != "default":
        yield "rope_scaling", parameters


def _write(file: Path, config: dict[str, Any]) -> None:
    atomic_write(file, json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
