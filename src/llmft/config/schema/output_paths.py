"""Keep the output paths of callbacks, loggers and trainer inside the run directory."""

import os
import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config.schema.cross_field import Faults, cross_field
from llmft.config.schema.types import TEXT, Rule
from llmft.config.tree import walk
from llmft.utils.text import first_line

# Arguments of callbacks, loggers and the trainer that are output folders, and those that become part of an output path.
FOLDERS = ("save_dir", "dirpath", "dir", "default_root_dir", "root_dir", "log_dir", "tracking_uri", "artifact_location")
PARTS = ("filename", "version", "sub_dir", "name", "file", "folder")

RULES: dict[str, Rule] = {"output_dir": TEXT}


@cross_field("output_dir", "callbacks", "logger", "trainer")
def _inside(cfg: DictConfig) -> Faults:
    """Output paths outside of ``output_dir``."""
    root = Path(os.path.abspath(cfg.output_dir))  # noqa: PTH100 (do not resolve links)
    for group in ("callbacks", "logger", "trainer"):
        try:
            nodes = OmegaConf.to_container(cfg[group], resolve=True)
        except OmegaConfBaseException as error:
            yield f"{group}: {first_line(error)}"
            continue
        for path, value in walk(nodes, group):
            key = path.rpartition(".")[2]
            if not isinstance(value, str) or key not in (*FOLDERS, *PARTS):
                continue
            folder = Path(os.path.abspath(re.sub("^file:(//)?", "", value)))  # noqa: PTH100
            inside = folder == root or root in folder.parents or value.startswith(("http://", "https://"))
            if "\0" in value or (key in FOLDERS and not inside) or (key in PARTS and not _is_part(value)):
                yield f"{path}={value}: is outside of output_dir={cfg.output_dir}; a run only writes there"


def _is_part(text: str) -> bool:
    return not text.startswith(("/", "~")) and ".." not in text.split("/") and len(text.encode()) <= 200
