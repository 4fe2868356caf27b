"""The licence of a base model, where it is known."""

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.paths import conf_dir
from llmft.utils.paths import user_path

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)


def of_base(model: DictConfig) -> str | None:
    """What the model's config says (``model.license``, for its own path), or the card in its local folder; None if neither."""
    shipped = conf_dir() / "model" / f"{model.name}.yaml"
    if shipped.is_file():
        known: Any = OmegaConf.load(shipped)
        if known.path == model.path:
            return OmegaConf.select(known, "license")
    card = user_path(str(model.path)) / "README.md"
    return of_card(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None


def of_card(text: str) -> str | None:
    """The ``license`` of a model card's front matter."""
    head = FRONT_MATTER.match(text)
    found = re.search(r"^license:\s*[\"']?([\w.+-]+)", head[1], re.MULTILINE) if head else None
    return found[1] if found else None
