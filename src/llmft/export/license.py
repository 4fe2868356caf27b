"""Find the license and the language of a base model."""

import re

from llmft.config.schema.model import Model
from llmft.export.base_model import shipped_model
from llmft.utils.paths import user_path

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)


def base_model_license(model: Model) -> str | None:
    """The license from the model's config (``model.license``, if the path is unchanged) or its local card; None if unknown."""
    shipped = shipped_model(model)
    return shipped.get("license") if shipped is not None else _of_card(model, "license")


def base_model_language(model: Model) -> str | None:
    """The language in the base model's local card, if it names one; None if it is unknown."""
    return _of_card(model, "language")


def _of_card(model: Model, key: str) -> str | None:
    card = user_path(str(model.path)) / "README.md"
    return front_matter(card.read_text(encoding="utf-8", errors="replace"), key) if card.is_file() else None


def front_matter(text: str, key: str) -> str | None:
    """A single value of a model card's front matter."""
    head = FRONT_MATTER.match(text)
    found = re.search(rf"^{key}:[ \t]*[\"']?([\w.+-]+)", head[1], re.MULTILINE) if head else None
    return found[1] if found else None
