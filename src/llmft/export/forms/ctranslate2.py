"""``form=ctranslate2``: the merged weights in CTranslate2's format, with the tokenizer's files beside them."""

import json
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmft.export.forms.source import Source, copy_rest
from llmft.models.backbone import transformers4
from llmft.models.backbone.special_ids import decoder_start_id
from llmft.runtimes.ctranslate2 import MODEL_CONFIG
from llmft.utils.errors import UserError
from llmft.utils.text import one_line

# Configs whose conversion is compared with the trained model in tests/integration/export/test_ctranslate2.py.
ARCHITECTURES = (
    "T5Config", "MT5Config", "UMT5Config", "BartConfig", "M2M100Config", "PegasusConfig", "GPT2Config", "LlamaConfig",
    "MistralConfig", "Qwen2Config", "Qwen3Config", "GemmaConfig", "Gemma3TextConfig",
)  # fmt: skip

# Of the others, CTranslate2 4.8.5 ignores llama3's factors (Llama 3.1 and later), and has no yarn.
ROTARY_TYPES = ("default", "linear")


def check(config: Any) -> None:
    """Check, before any work, that a model can be converted.

    Args:
        config: Its transformers config.

    Raises:
        UserError: CTranslate2 is not installed, or does not have its architecture or its rotary positions.
    """
    if find_spec("ctranslate2") is None:
        raise UserError('form=ctranslate2: needs CTranslate2; pip install "llmft[ctranslate2]"')
    name = type(config).__name__
    if name not in ARCHITECTURES:
        known = ", ".join(one.removesuffix("Config") for one in ARCHITECTURES)
        raise UserError(
            f"form=ctranslate2: {name.removesuffix('Config')} is not an architecture that llmft converts ({known});"
            " use form=merged"
        )
    rotary = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rotary not in ROTARY_TYPES:
        raise UserError(
            f"form=ctranslate2: rope_type={rotary}: CTranslate2 computes other rotary positions than"
            " transformers; use form=merged"
        )


def write(source: Source, folder: Path) -> None:
    """Convert the merged weights, in their dtype or with ``quantize``."""
    assert source.merged
    convert(source.merged, folder, source.settings.quantization_of("ctranslate2"))


def convert(merged: Path, folder: Path, quantization: str | None = None) -> None:
    """Convert a model folder.

    Args:
        merged: Full weights, tokenizer, chat template and generation config.
        folder: The target folder.
        quantization: ``int8`` or another one of CTranslate2; None keeps the dtype of the weights.

    Raises:
        UserError: The converter refuses the model.
    """
    from ctranslate2 import converters

    converter: Any = converters.TransformersConverter(str(merged))
    converter.load_model, converter.load_tokenizer = _load_model, _load_tokenizer
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        try:
            converted = converter.convert(f"{scratch}/model", quantization=quantization)
        except (AttributeError, KeyError, NotImplementedError, ValueError, RuntimeError) as error:
            raise UserError(f"form=ctranslate2: its converter refuses the model ({one_line(error)})") from error
        for file in Path(converted).iterdir():
            shutil.move(file, folder / file.name)
    copy_rest(merged, folder)
    shutil.copy(merged / "config.json", folder / MODEL_CONFIG)


def _load_model(model_class: Any, folder: str, **options: Any) -> Any:
    """The model, with the config as the converter expects it."""
    from transformers import GenerationConfig

    model = model_class.from_pretrained(folder, use_safetensors=True, **options)
    model.generation_config = GenerationConfig.from_pretrained(folder)
    config = model.config
    config.tie_word_embeddings = _scales_outputs(config)
    if config.is_encoder_decoder:
        config.decoder_start_token_id = decoder_start_id(model)
        # keys of the Bart family that transformers 5 dropped; the layers say the same
        encoder = model.get_encoder()
        config.normalize_before = hasattr(encoder, "layer_norm")
        config.normalize_embedding = hasattr(encoder, "layernorm_embedding")
    return model


def _scales_outputs(config: Any) -> bool:
    """Whether the decoder's outputs are scaled before the head, which the converter concludes from ``tie_word_embeddings``.

    transformers 5 sets that flag for all of the T5 family.
    """
    scales = transformers4.scales(config)
    return config.tie_word_embeddings if scales is None else scales


def _load_tokenizer(tokenizer_class: Any, folder: str, **options: Any) -> Any:
    """The tokenizer, with a token for each row of the embedding: CTranslate2 takes tokens, and numbers them in order."""
    tokenizer = tokenizer_class.from_pretrained(folder, trust_remote_code=False, **options)
    rows = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    tokens = {number: token for token, number in tokenizer.get_vocab().items()}
    vocabulary = {tokens.get(number, f"<row_{number}>"): number for number in range(rows)}
    tokenizer.get_vocab = lambda: vocabulary
    if (
        tokenizer.unk_token is None
    ):  # byte-level tokenizers have none; it is never used, since every token is in the vocabulary
        tokenizer.unk_token = tokenizer.eos_token
    return tokenizer
