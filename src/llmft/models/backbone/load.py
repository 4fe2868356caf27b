"""Load a pretrained model and its tokenizer: dtype, attention, train mode and dropout as the config says."""

import logging
from pathlib import Path
from typing import Any

from hydra.utils import get_class

from llmft.config.auto_values import PLAIN
from llmft.config.schema.model import Model
from llmft.config.schema.peft import Peft
from llmft.data.tokenization.frames import target_frame
from llmft.models.backbone import languages, loadable, new_tokens, quantization, untrusted
from llmft.models.backbone.special_ids import decoder_start_id, part_configs
from llmft.utils.errors import UserError
from llmft.utils.oom import is_out_of_memory
from llmft.utils.text import one_line

log = logging.getLogger(__name__)

# Names of a language model's weights in the files of a model that also sees; the other weights are not loaded.
TEXT_WEIGHTS = {
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^model\.language_model\.": "model.",
}
# What dropout is called in the configs of T5, GPT-2, the Llama-likes and BART.
DROPOUTS = ("dropout_rate", "resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "dropout")
# Of transformers' GenerationConfig: what a model needs to answer. Marian would predict its padding without ``bad_words_ids``.
KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "bad_words_ids")


def family_of(cfg: Model) -> Any:
    """The forward class of a model config (``model._target_``); its ``auto_class`` loads the weights."""
    return get_class(cfg.target)


def load_tokenizer(path: str, cfg: Model) -> Any:
    """The tokenizer with ``model.new_tokens``; without a pad token (GPT-2) it pads with its EOS, which is always masked."""
    from transformers import AutoTokenizer

    tokenizer = _load(AutoTokenizer, path, cfg)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    languages.set_languages(tokenizer, cfg)
    if new := cfg.new_tokens:
        from transformers import AddedToken

        # no special tokens, so that they are found in users' text, and with their own spaces and newlines
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in new])
    return tokenizer


def load_config(path: str, cfg: Model) -> Any:
    """The transformers config of the model, with ``model.dropout``."""
    from transformers import AutoConfig

    auto_class = family_of(cfg).auto_class
    config = text_config(_load(AutoConfig, path, cfg), auto_class)
    loadable.check_config(config, path, cfg, known=model_class(config, auto_class) is not None)
    for part in part_configs(config):
        for name in DROPOUTS:
            if cfg.dropout is not None and hasattr(part, name):
                setattr(part, name, cfg.dropout)
    return config


def load_model(path: str, cfg: Model, peft: Peft | None = None, *, meta: bool = False) -> Any:
    """The model in ``model.dtype``, in train mode, with a generation config that holds its special ids only.

    ``from_pretrained`` alone would keep the dtype of the checkpoint (bf16 weights lose small updates), leave the model in
    eval mode (no dropout), and keep sampling settings that make ``save_pretrained`` fail.

    Args:
        path: From ``locate.locate``.
        cfg: The config of the model group.
        peft: The config of the peft group, for a base in 4 or 8 bits (``peft.quantise``); None for full precision.
        meta: Whether to read no weights and leave the model on the meta device.

    Raises:
        UserError: There is no such model, it cannot be loaded, or some of its weights are missing.
    """
    from transformers import AutoConfig, GenerationConfig

    config, whole = load_config(path, cfg), _load(AutoConfig, path, cfg)
    options = {"dtype": dtype_of(cfg), "use_safetensors": True, "attn_implementation": attention_of(cfg, config)}
    options |= quantization.options(peft)
    if meta:
        options["device_map"] = {"": "meta"}
    part = type(config) is not type(whole)
    if part:
        options["key_mapping"] = TEXT_WEIGHTS
    # mismatched sizes are refused by check_loaded, which names them
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, info = _load(family_of(cfg).auto_class, path, cfg, config=config, **options)
    untrusted.check_loaded(path, info)
    if part:
        model._weight_conversions = None  # or saving would rename the weights back
    if "quantization_config" in options:
        quantization.keep_training_kernels(model)
    if cfg.new_tokens:
        new_tokens.resize_embeddings(model, load_tokenizer(path, cfg), cfg.new_tokens)
    model.generation_config = GenerationConfig(**{key: getattr(model.generation_config, key) for key in KEPT})
    if config.is_encoder_decoder:
        model.generation_config.decoder_start_token_id = _decoder_start(model, path, cfg)
    recompute_activations(model, cfg, offload=cfg.activation_offload)
    return model.train()


def recompute_activations(model: Any, cfg: Model, *, offload: bool = False) -> None:
    """Turn gradient checkpointing on as ``model.gradient_checkpointing`` says.

    Args:
        model: A transformers model.
        cfg: The config of the model group.
        offload: Whether the inputs of recomputed layers wait in CPU memory.
    """
    if cfg.gradient_checkpointing:
        model.activation_checkpointing_enable(
            activation_checkpointing_kwargs={"use_reentrant": False},
            every_n_layers=int(cfg.gradient_checkpointing),  # true is every layer
            offload=offload,
        )


def dtype_of(cfg: Model) -> Any:
    """The torch dtype of ``model.dtype``; ``auto``, which only a training resolves, is float32."""
    import torch

    return getattr(torch, PLAIN["model.dtype"] if cfg.dtype == "auto" else cfg.dtype)


def _decoder_start(model: Any, path: str, cfg: Model) -> int:
    """The decoder's start token: mBART's is the target language, and in no config."""
    if cfg.target_language:
        language = target_frame(load_tokenizer(path, cfg)).start
        if language is not None:
            return language
    return decoder_start_id(model)


def attention_of(cfg: Model, config: Any = None) -> str:
    """``model.attention`` as transformers names it; models are loaded, and generate, with sdpa for ``by_length`` and ``auto``.

    Args:
        cfg: The config of the model group.
        config: The transformers config; a model without sdpa (LongT5, T5Gemma with its soft cap) gets eager attention.
    """
    if cfg.attention == "eager":
        return "eager"
    kind = config and model_class(config, family_of(cfg).auto_class)
    return "sdpa" if kind is None or kind._supports_sdpa else "eager"


def text_config(config: Any, auto_class: Any) -> Any:
    """The config of the language model of one that also sees or hears (Gemma 3 from 4B on), if it exists by itself.

    Args:
        config: A transformers config.
        auto_class: The ``AutoModelFor...`` class of the family.
    """
    text = getattr(config, "text_config", None)
    return text if text is not None and model_class(text, auto_class) else config


def model_class(config: Any, auto_class: Any) -> Any:
    """The transformers class of a config; None for a class that comes with the model."""
    return auto_class._model_mapping.get(type(config), None)


def max_positions(config: Any) -> int | None:
    """The number of positions of a model, of an encoder-decoder on each side; None if they are relative (T5)."""
    if hasattr(config, "relative_attention_num_buckets"):
        return None
    found = (getattr(part, "max_position_embeddings", None) for part in part_configs(config))
    return min((positions for positions in found if positions is not None), default=None)


def needed_positions(config: Any, prompt: int, answer: int) -> int:
    """The positions that a prompt and its answer take: one after the other, or each on its side of an encoder-decoder."""
    return max(prompt, answer) if getattr(config, "is_encoder_decoder", False) else prompt + answer


def _load(auto_class: Any, path: str, cfg: Model, **options: Any) -> Any:
    code = cfg.trust_remote_code
    if Path(path).is_dir():
        untrusted.check_model(Path(path), code=code)
    try:
        # True or False, never None, which prompts on standard input
        return auto_class.from_pretrained(path, revision=cfg.revision, trust_remote_code=code, **options)
    except Exception as error:  # a malformed file can raise anything
        if is_out_of_memory(error):
            raise
        reason = one_line(error)
        if Path(path).is_dir():
            raise UserError(f"model.path={path}: transformers cannot load this folder ({reason})") from error
        raise UserError(
            f"model.path={path}: no such local folder, and the download from the Hub failed ({reason}). Offline: fetch it where "
            f"there is a network (`hf download {path} --local-dir FOLDER`), copy the folder here and pass model.path=FOLDER; "
            "or use one that needs no hub: model=smollm2_135m, tiny_t5, tiny_gpt2, tiny_llama or tiny_gemma"
        ) from error
