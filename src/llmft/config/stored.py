"""Read the stored config of a run, with limits against malicious YAML."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.utils.text import one_line

MAX_VALUES = 100_000  # a training config has about 200


def stored_config(file: Path) -> DictConfig:
    """Read ``config.yaml`` of a run; the file is not trusted.

    Raises:
        ValueError: Not a YAML mapping, or too large once its aliases are expanded.
    """
    from yaml import CSafeLoader, MappingNode, YAMLError, compose

    try:
        text = file.read_text(encoding="utf-8")
        node = compose(text, Loader=CSafeLoader)
        if not isinstance(node, MappingNode):
            raise ValueError("it is not the config of a run")
        if _expanded_size(node, {}) > MAX_VALUES:
            raise ValueError(f"it would have more than {MAX_VALUES:,} values")
        return OmegaConf.create(text)  # pyright: ignore[reportReturnType] (a mapping gives a DictConfig)
    except (OSError, YAMLError, RecursionError, OmegaConfBaseException) as error:
        raise ValueError(one_line(error)) from None


def _expanded_size(node: Any, known: dict[int, int]) -> int:
    """Number of values in a YAML document once its aliases are expanded (a "billion laughs" guard)."""
    if isinstance(node.value, str):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # an alias to itself would never end
        pairs = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_expanded_size(part, known) for part in pairs)
    return known[id(node)]
