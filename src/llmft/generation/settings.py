"""Generation settings -> transformers' GenerationConfig."""

from collections.abc import Mapping
from typing import Any

from llmft.config.schema.generation import settings_fault
from llmft.data.tokenization.codec import Codec
from llmft.utils.errors import UserError


def stop_ids(model: Any, codec: Codec) -> list[int]:
    """The ids that end an answer: the trained stop token, the tokenizer's EOS, and the EOS ids of the model's own config."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    return sorted({*codec.stop_ids, codec.tokenizer.eos_token_id, *own} - {None})


def generation_config(model: Any, codec: Codec, settings: Mapping[str, Any]) -> Any:
    """The GenerationConfig of these settings, with the special ids of the model and its tokenizer.

    Args:
        model: A transformers or peft model.
        codec: Its tokenizer and prompt template.
        settings: Keys of GenerationConfig.

    Raises:
        UserError: A setting is unknown, or contradicts another.
    """
    if fault := settings_fault(settings):
        raise UserError(fault)
    from transformers import GenerationConfig

    own = model.generation_config
    fixed = {"forced_bos_token_id": next(iter(codec.target_frame.forced), None), "bad_words_ids": own.bad_words_ids}
    return GenerationConfig(
        **{**fixed, **settings},
        bos_token_id=own.bos_token_id,
        eos_token_id=stop_ids(model, codec),
        pad_token_id=codec.tokenizer.pad_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
        use_cache=True,
    )
