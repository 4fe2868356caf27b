"""The YAML front matter of a model card: what the Hub shows and searches."""

import json
from collections.abc import Mapping
from typing import Any

from llmft.config.schema import TrainConfig
from llmft.data.sources import HUB_ID
from llmft.export import license
from llmft.export.base_model import published_id

LIBRARIES = {"adapter": "peft", "ctranslate2": "ctranslate2", "gguf": "gguf", "onnx": "onnx"}


def head(cfg: TrainConfig, form: str, title: str, scores: Mapping[str, Any] | None, language: str | None) -> str:
    """The front matter, with the scores of ``evaluation.json`` as the Hub's ``model-index``.

    Args:
        cfg: The run's config.
        form: The form of the export.
        title: Of the card.
        scores: The content of ``evaluation.json``; None if nothing was evaluated.
        language: Code of the answers' language; None takes the base model's card.
    """
    base = published_id(cfg)
    found: dict[str, Any] = {
        "library_name": LIBRARIES.get(form, "transformers"),
        "tags": ["llmft"],
        "pipeline_tag": "text-generation",
        "base_model": base,
        "base_model_relation": {"adapter": "adapter", "gguf": "quantized"}.get(form, "finetune") if base else None,
        "language": language or license.base_model_language(cfg.model),
        "license": license.base_model_license(cfg.model),
        "model-index": [{"name": title, "results": _results(cfg, scores)}] if scores else None,
    }
    # JSON is YAML
    lines = [f"{key}: {json.dumps(value)}" for key, value in found.items() if value is not None]
    return "\n".join(["---", *lines, "---"])


def _results(cfg: TrainConfig, scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    path = cfg.data.path if isinstance(cfg.data.path, str) else ""
    data = {"name": cfg.data.name, "type": path if HUB_ID.match(path) else cfg.data.name, "split": scores["split"]}
    metrics = [
        {"type": name, "value": entry["tuned"]}
        for name, entry in scores["scores"].items()
        if isinstance(entry.get("tuned"), (int, float))
    ]
    return [{"task": {"type": "text-generation"}, "dataset": data, "metrics": metrics}]
