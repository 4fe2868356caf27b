"""Find the license of a base model."""

import re
from typing import Any

from omegaconf import OmegaConf

from llmft.config.paths import conf_dir
from llmft.config.schema.model import Model
from llmft.utils.paths import user_path

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)


def base_model_license(model: Model) -> str | None:
    """The license from the model's config (``model.license``, if the path is unchanged) or its local card; None if unknown."""
    shipped = conf_dir() / "model" / f"{model.name}.yaml"
    if shipped.is_file():
        known: Any = OmegaConf.load(shipped)
        if not OmegaConf.is_missing(known, "path") and known.path == model.path:
            return OmegaConf.select(known, "license")
    card = user_path(str(model.path)) / "README.md"
    return card_license(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None


def card_license(text: str) -> str | None:
    """The ``license`` of a model card's front matter."""
    head = FRONT_MATTER.match(text)
    found = re.search(r"^license:\s*[\"']?([\w.+-]+)", head[1], re.MULTILINE) if head else None
    return found[1] if found else None
