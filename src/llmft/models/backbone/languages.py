"""Source and target language of a translation model (mBART, NLLB, M2M100, multilingual Marian)."""

from typing import Any

from llmft.config.schema.model import Model
from llmft.utils.errors import UserError
from llmft.utils.text import did_you_mean

KEYS = {"model.source_language": "src_lang", "model.target_language": "tgt_lang"}


def set_languages(tokenizer: Any, cfg: Model) -> None:
    """Set the languages of a tokenizer, which decide on the special tokens around source and target.

    Args:
        tokenizer: A Hugging Face tokenizer; one with ``src_lang`` and ``tgt_lang`` must get both.
        cfg: The config of the model group, with ``source_language`` and ``target_language`` (null without language codes).

    Raises:
        UserError: A language is missing or unknown, or the tokenizer has no language codes.
    """
    wanted = {key: cfg.select(key.partition(".")[2]) for key in KEYS}
    if supported := getattr(tokenizer, "supported_language_codes", None):  # Marian: a code in the source, or none
        _set_marian(tokenizer, wanted, supported)
    elif hasattr(tokenizer, "src_lang"):
        _set_pair(tokenizer, wanted)
    elif given := [f"{key}={code}" for key, code in wanted.items() if code]:
        raise UserError(f"{', '.join(given)}: this tokenizer has no language codes; leave it at null")


def _set_marian(tokenizer: Any, wanted: dict[str, Any], supported: list[str]) -> None:
    source, target = wanted.values()
    if source:
        raise UserError(
            f"model.source_language={source}: a Marian model finds its source language by itself; leave it at null"
        )
    if target and f">>{target}<<" not in supported:
        raise UserError(_unknown("model.target_language", target, [code.strip("<>") for code in supported]))
    tokenizer.target_code = f">>{target}<< " if target else ""


def _set_pair(tokenizer: Any, wanted: dict[str, Any]) -> None:
    if missing := [key for key, code in wanted.items() if not code]:
        raise UserError(
            f"{' and '.join(missing)}: this model translates, and needs the codes of both languages, e.g. "
            f"model.source_language={tokenizer.src_lang}; it has {_shortened(_codes(tokenizer))}"
        )
    known = _codes(tokenizer)
    for key, code in wanted.items():
        if code not in known:
            raise UserError(_unknown(key, code, known))
        setattr(tokenizer, KEYS[key], code)


def _codes(tokenizer: Any) -> list[str]:
    return list(getattr(tokenizer, "lang_code_to_id", None) or tokenizer.extra_special_tokens)


def _unknown(key: str, code: str, codes: list[str]) -> str:
    return f"{key}={code}: this model has no such language.{did_you_mean(code, codes)} It has {_shortened(codes)}"


def _shortened(codes: list[str]) -> str:
    return ", ".join(codes[:8]) + (f" and {len(codes) - 8} more" if len(codes) > 8 else "")
