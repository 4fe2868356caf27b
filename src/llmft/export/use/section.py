"""The section "Use" of a model card: code and commands that run as they stand, in the folder of the card or by its Hub id."""

from pathlib import Path

from llmft.config.schema import TrainConfig
from llmft.export.use import ctranslate2, gguf, onnx, transformers

SETTINGS_IN_FILES = (
    "The prompt format is the tokenizer's chat template; the decoding settings are in the generation config.\n"
)


def section(cfg: TrainConfig, form: str, folder: Path | None, hub: str | None) -> str:
    """The section as Markdown.

    Args:
        cfg: The run's config.
        form: The form of the export.
        folder: The exported folder; needed for the forms gguf and onnx, whose code depends on their files.
        hub: ``owner/name`` if it is pushed.
    """
    match form:
        case "gguf":
            assert folder
            return gguf.section(folder, cfg)
        case "onnx":
            assert folder
            return onnx.section(folder, cfg, hub)
        case "ctranslate2":
            code = ctranslate2.code(cfg, hub)
        case _:
            code = transformers.code(cfg, form, hub)
    return f"```python\n{code}\n```\n\n{SETTINGS_IN_FILES}"
