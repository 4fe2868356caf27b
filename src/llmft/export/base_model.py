"""The base model of a run by its public name, without paths of this machine."""

from pathlib import Path

from llmft.config.schema import TrainConfig
from llmft.data.sources import HUB_ID
from llmft.utils.paths import user_path


def public_id(cfg: TrainConfig) -> str | None:
    """The Hub id of the base model; None if it is not from the Hub."""
    path = str(cfg.model.path)
    return path if HUB_ID.match(path) and not user_path(path).is_dir() and ":" not in path else None


def local_name(cfg: TrainConfig) -> str:
    """The name of a base that is not on the Hub: of its folder, or of the package or tiny model."""
    return Path(str(cfg.model.path).replace(":", "-")).name
