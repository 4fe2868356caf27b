"""A run writes into its own directory alone, whatever its config says."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config.schema.cross_field import Faults, cross_field
from llmft.config.schema.types import TEXT, Rule
from llmft.utils.text import first_line

# Arguments of callbacks, loggers and the trainer that say where they write, and parts of such names.
FOLDERS = ("save_dir", "dirpath", "dir", "default_root_dir", "root_dir", "log_dir", "tracking_uri", "artifact_location")
PARTS = ("filename", "version", "sub_dir", "name", "file", "folder")

RULES: dict[str, Rule] = {"output_dir": TEXT}


@cross_field("output_dir", "callbacks", "logger", "trainer")
def _inside(cfg: DictConfig) -> Faults:
    """A run writes into its own directory alone, whatever its config says."""
    root = Path(os.path.abspath(cfg.output_dir))  # noqa: PTH100 (the file may be a link; the name counts)
    for group in ("callbacks", "logger", "trainer"):
        try:
            nodes = OmegaConf.to_container(cfg[group], resolve=True)
        except OmegaConfBaseException as error:
            yield f"{group}: {first_line(error)}"
            continue
        for path, key, value in _written(nodes, group):
            folder = Path(os.path.abspath(re.sub("^file:(//)?", "", value)))  # noqa: PTH100
            within = folder == root or root in folder.parents or value.startswith(("http://", "https://"))
            if "\0" in value or (key in FOLDERS and not within) or (key in PARTS and not _is_part(value)):
                yield f"{path}={value}: leads out of output_dir={cfg.output_dir}; a run writes nothing elsewhere"


def _written(node: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(node, dict):
        for key, child in node.items():
            if isinstance(child, str) and key in (*FOLDERS, *PARTS):
                yield f"{path}.{key}", key, child
            yield from _written(child, f"{path}.{key}")


def _is_part(text: str) -> bool:
    return not text.startswith(("/", "~")) and ".." not in text.split("/") and len(text.encode()) <= 200
