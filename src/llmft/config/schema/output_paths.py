"""Keep the output paths of callbacks, loggers and trainer inside the run directory."""

import os
import re
from pathlib import Path
from typing import Any

from llmft.config.schema.callbacks import Callbacks, Loggers
from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.trainer import Trainer
from llmft.config.tree import walk

# Arguments of callbacks, loggers and the trainer that are output folders, and those that become part of an output path.
FOLDERS = ("save_dir", "dirpath", "dir", "default_root_dir", "root_dir", "log_dir", "tracking_uri", "artifact_location")
PARTS = ("filename", "version", "sub_dir", "name", "file", "folder")


@rule("output_dir", "callbacks", "logger", "trainer")
def _inside(output_dir: str, callbacks: Callbacks, logger: Loggers, trainer: Trainer) -> Faults:
    """Output paths outside of ``output_dir``."""
    root = Path(os.path.abspath(output_dir))  # noqa: PTH100 (do not resolve links)
    groups = {"callbacks": callbacks, "logger": logger}
    nodes: dict[str, Any] = {
        group: {name: node.node() for name, node in found.items() if node} for group, found in groups.items()
    }
    for path, value in walk({**nodes, "trainer": trainer.node()}):
        key = path.rpartition(".")[2]
        if not isinstance(value, str) or key not in (*FOLDERS, *PARTS):
            continue
        folder = Path(os.path.abspath(re.sub("^file:(//)?", "", value)))  # noqa: PTH100
        inside = folder == root or root in folder.parents or value.startswith(("http://", "https://"))
        if "\0" in value or (key in FOLDERS and not inside) or (key in PARTS and not _is_part(value)):
            yield f"{path}={value}: is outside of output_dir={output_dir}; a run only writes there"


def _is_part(text: str) -> bool:
    return not text.startswith(("/", "~")) and ".." not in text.split("/") and len(text.encode()) <= 200
