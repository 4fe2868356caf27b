"""Save the trained model to ``model/``, for transformers and peft, with prompt template and generation settings."""

from pathlib import Path

from llmft.config.schema import TrainConfig
from llmft.generation.generator import Generator
from llmft.models.backbone import transformers4
from llmft.models.peft import trainable
from llmft.utils.files import atomic_folder


def save_model(folder: Path, generator: Generator, cfg: TrainConfig, base: str) -> None:
    """Write the weights (for LoRA the adapter only), tokenizer, prompt template and generation config as one atomic folder.

    The trained prompt template is saved as the tokenizer's chat template, so that ``apply_chat_template`` gives the same
    token ids in other tools.

    Args:
        folder: ``model/`` of the run.
        generator: Holds the model and the codec.
        cfg: The run's config.
        base: Hub id or name of the base model, for ``adapter_config.json``; peft would write its path on this machine.
    """
    with atomic_folder(folder) as unfinished:
        _write(unfinished, generator, cfg, base)


def _write(folder: Path, generator: Generator, cfg: TrainConfig, base: str) -> None:
    model, tokenizer = generator.model, generator.codec.tokenizer
    full = not trainable.is_adapter(cfg.peft)
    settings = generator.config()
    kept, model.generation_config = model.generation_config, settings
    try:
        if full:
            transformers4.save_model(model, folder)
        else:  # "auto" may add the full embedding to an adapter, and contacts the hub; trained rows are saved in any case
            for config in model.peft_config.values():
                config.base_model_name_or_path = base
            model.save_pretrained(folder, save_embedding_layers=False)
    finally:
        model.generation_config = kept
    settings.save_pretrained(folder)
    template, tokenizer.chat_template = tokenizer.chat_template, generator.codec.template.saved
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template = template
    transformers4.rewrite_tokenizer_config(folder)
