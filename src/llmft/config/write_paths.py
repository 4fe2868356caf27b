"""Which files a config may write: those below the output folder, and where the command line allows it (docs/security.md)."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmft.config.tree import walk
from llmft.config.typed_overrides import list_of, values_of

STUDY = "study.journal"  # of an Optuna search, beside the run directories of its jobs
OUTPUTS = "outputs"  # the folder of conf/train.yaml's output_dir, and of sweeps
# Arguments of callbacks, loggers, profilers and Hydra's launchers that are output folders or files, and those that become part
# of a path.
FOLDER = re.compile(r"(^|_)(dir|directory|dirpath|path|uri|location|root|study|storage|submitit_folder)$")
FOREIGN_FOLDER = re.compile(
    r"(^|_)(dir|dirpath|uri|location)$"
)  # of classes from elsewhere, which may read other paths
PART = re.compile(r"^(filename|version|sub_dir|name|file|folder|(filename_)?suffix|id|run_id|checkpoint_name)$")
REMOTE = ("http://", "https://")
# Classes that write into the working directory unless one of these arguments is set.
WORKING_DIRECTORY = {
    "WandbLogger": ("save_dir", "dir"),
    "MLFlowLogger": ("tracking_uri", "save_dir"),
    "LitLogger": ("root_dir",),
    "SpikeDetection": ("exclude_batches_path",),
}
GROUPS = ("callbacks", "logger", "trainer")
WAY_OUT = "pass it on the command line, or the folder as 'allow_writes=[DIR]'"


class Writable(NamedTuple):
    """What is allowed to be written.

    Attributes:
        folders: Below which everything may be written.
        overrides: The command line; a path that it names itself may be written too.
    """

    folders: tuple[Path, ...]
    overrides: Sequence[str] = ()

    @classmethod
    def by(cls, overrides: Sequence[str], *folders: Path | str) -> "Writable":
        """What a command line allows, in addition to ``folders``."""
        return cls((*map(Path, folders), *map(Path, list_of("allow_writes", overrides))), overrides)

    def holds(self, path: str) -> bool:
        """Whether a path is one of the folders, or below one; links are followed."""
        return "\0" not in path and any(_below(path, folder) for folder in self.folders)

    def allows(self, key: str, path: str) -> bool:
        """Whether a path is below one of the folders, or the value of this key on the command line.

        A value with an interpolation, such as ``/scratch/${data.name}``, allows what is below the folder before it.
        """
        if self.holds(path):
            return True
        for text, value in values_of(key, self.overrides):
            folder = text.partition("${")[0].rpartition("/")[0]
            if value == path or (folder not in ("", ".", "..") and value is None and _below(path, Path(folder))):
                return True
        return False


def path_faults(plain: Mapping[str, Any], keys: Sequence[str], writable: Writable) -> Iterator[str]:
    """Paths that a command would write to although a file names them.

    Args:
        plain: The resolved config of a command.
        keys: Top-level keys of that command that name what is written.
        writable: What the command line allows.
    """
    judges = (plain.get("judge") or {}).get("kind", "none") != "none"
    for key in keys:
        if key == "input" and not judges:  # judge.jsonl is written beside it
            continue
        value = plain.get(key)
        if isinstance(value, str) and value != "latest" and not writable.allows(key, value):
            yield f"{key}={value}: set in a config file, and would be written to; {WAY_OUT}"
    for path, value in walk(plain.get("data")):
        key = f"data.{path}"
        is_cache = path.rpartition(".")[2] == "cache" and isinstance(value, str) and value != "off"
        if is_cache and not writable.allows(key, value):
            yield f"{key}={value}: set in a config file, and would be written to; {WAY_OUT}"


def argument_faults(plain: Mapping[str, Any], writable: Writable, *, foreign: bool = True) -> Iterator[str]:
    """Arguments of callbacks, loggers and the trainer that would write outside of ``output_dir``.

    Args:
        plain: The resolved config of a training.
        writable: ``output_dir``, and what the command line allows.
        foreign: Whether to look at classes that are neither of llmft nor of Lightning too.
    """
    shown = f"is outside of output_dir={plain['output_dir']}; a run only writes there (and below 'allow_writes=[DIR]')"
    for group in GROUPS:
        for path, node in walk(plain.get(group), group):
            if isinstance(node, dict) and (faults := _defaults_outside(path, node)):
                yield faults
                continue
            folders = FOLDER if _is_ours(_target(plain, path)) else FOREIGN_FOLDER if foreign else None
            if folders and not _is_inside(path, node, writable, folders):
                yield f"{path}={node}: {shown}"


def is_part(text: str) -> bool:
    """Whether a text that becomes part of a path stays below the folder before it."""
    return not text.startswith(("/", "~")) and ".." not in text.split("/") and len(text.encode()) <= 200


def _is_inside(path: str, value: Any, writable: Writable, folders: re.Pattern[str]) -> bool:
    key = re.sub(r"\[\d+\]$", "", path.rpartition(".")[2])
    if value is None or isinstance(value, bool | dict | list) or key.startswith("_"):
        return True
    text = str(value)
    if "\0" in text:
        return False
    if PART.search(key):
        return is_part(text)
    is_folder = folders.search(key)
    if not isinstance(value, str) and not is_folder:
        return True
    if text.startswith(REMOTE):
        return True
    file = re.sub("^file:(//)?", "", text)
    if file != text and "%" in text:  # an encoded path, such as %2e%2e
        return False
    if is_folder or (folders is FOLDER and (file != text or not is_part(text[:200]))):
        return not file.startswith("~") and writable.allows(path, file)  # some libraries expand it, others do not
    return True


def _is_ours(target: str) -> bool:
    """Whether a class is of llmft or Lightning; those that ``allow_targets`` adds have all rights of the user."""
    return target.startswith(("llmft.", "lightning."))


def _target(plain: Mapping[str, Any], path: str) -> str:
    """The class whose argument a key is, at any depth."""
    node: Any = plain
    found = "llmft."
    for part in re.split(r"\.|\[(\d+)\]", path):
        if not part:
            continue
        node = node[int(part)] if isinstance(node, list) else node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict) and isinstance(node.get("_target_"), str):
            found = node["_target_"]
    return found


def _defaults_outside(path: str, node: Mapping[str, Any]) -> str | None:
    needed = WORKING_DIRECTORY.get(str(node.get("_target_")).rpartition(".")[2], ())
    if not needed or any(node.get(key) for key in needed):
        return None
    key = f"{path}.{needed[0]}"
    return f"{key}: must be set, e.g. to ${{output_dir}}; {node['_target_']} would write into the working directory"


def _below(path: str, folder: Path) -> bool:
    inside = os.path.realpath(os.path.expanduser(path))  # noqa: PTH111 (a home that is not known is no error here)
    above = os.path.realpath(folder.expanduser())
    return inside == above or inside.startswith(f"{above.rstrip('/')}/")
