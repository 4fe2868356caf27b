"""Where conf/ and its files are."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def conf_dir() -> Path:
    """``conf/``: inside the package of an installed wheel, at the repository's root beside ``src`` otherwise."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[3] / "conf"


def bytes_of(size: str) -> int:
    """``4GB``, ``500MB``, ``20KB`` -> bytes, by powers of 1000."""
    number, unit = size[:-2], size[-2:].upper()
    return int(float(number) * 1000 ** ("KB", "MB", "GB", "TB").index(unit) * 1000)


def prompt_config(name: str) -> Any:
    """The shipped config of a prompt."""
    return OmegaConf.load(conf_dir() / "prompt" / f"{name}.yaml")
