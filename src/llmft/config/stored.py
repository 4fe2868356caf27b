"""Read the config of a stored run, within limits."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.utils.text import one_line

MAX_VALUES = 100_000  # of a stored config; a training's has some 200


def stored_config(file: Path) -> DictConfig:
    """``config.yaml`` of a run, perhaps somebody else's.

    Raises:
        ValueError: It is no YAML of a config, or its aliases would make it grow beyond all measure.
    """
    from yaml import CSafeLoader, MappingNode, YAMLError, compose

    try:
        text = file.read_text(encoding="utf-8")
        node = compose(text, Loader=CSafeLoader)
        if not isinstance(node, MappingNode):
            raise ValueError("it is not the config of a run")
        if _grown(node, {}) > MAX_VALUES:
            raise ValueError(f"it would have more than {MAX_VALUES:,} values")
        return OmegaConf.create(text)  # pyright: ignore[reportReturnType] (a mapping gives a DictConfig)
    except (OSError, YAMLError, RecursionError, OmegaConfBaseException) as error:
        raise ValueError(one_line(error)) from None


def _grown(node: Any, known: dict[int, int]) -> int:
    """How many values a YAML document has once its aliases are written out."""
    if isinstance(node.value, str):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # one that holds itself never ends
        pairs = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_grown(part, known) for part in pairs)
    return known[id(node)]
