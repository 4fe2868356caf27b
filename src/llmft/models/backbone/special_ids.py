"""Special ids of an encoder-decoder: where its decoder starts, and what pads its inputs."""

from typing import Any

from llmft.utils.errors import UserError


def decoder_start_id(model: Any) -> int:
    """The id that the decoder starts with, in training as in generation.

    mBART has none in its config; ``load.load_model`` sets that of ``model.target_language``. T5Gemma has two configs in one,
    and starts with the BOS of its decoder, as ``generate`` does.

    Raises:
        UserError: Neither the generation config nor the config has one.
    """
    for config in (model.generation_config, model.config, *part_configs(model.config)[1:]):
        for name in ("decoder_start_token_id", "bos_token_id"):
            found = getattr(config, name, None)
            if found is not None:
                return found[0] if isinstance(found, list) else found
    raise UserError("model: neither its config nor its generation config has a decoder_start_token_id")


def pad_id(model: Any) -> int:
    """The id that pads the decoder's inputs, which are masked or to the right of every supervised one; 0 if there is none."""
    found = (getattr(config, "pad_token_id", None) for config in part_configs(model.config))
    return next((pad for pad in found if pad is not None), 0)


def part_configs(config: Any) -> list[Any]:
    """A config and, of two configs in one (T5Gemma), those of its encoder and its decoder."""
    parts = (getattr(config, name, None) for name in ("encoder", "decoder"))
    return [config, *(part for part in parts if hasattr(part, "hidden_size"))]
