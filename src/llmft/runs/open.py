"""Open a run directory: its config, checked before anything in it is used."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config.paths import conf_dir
from llmft.config.stored import stored_config
from llmft.config.validate import check
from llmft.runs.find import HOLDS, find_run
from llmft.runs.record import run_status
from llmft.utils.errors import UserError
from llmft.utils.files import restore_folder
from llmft.utils.lock import is_claimed
from llmft.utils.paths import user_path

GROUPS = ("model", "data", "peft", "generation", "prompt")


def open_run(path: str, part: str = "model", allow: Sequence[str] = ()) -> tuple[Path, DictConfig]:
    """Open a run directory.

    Args:
        path: As given by the user; ``latest`` and a folder with one run are accepted too.
        part: The folder in it that the command needs: ``model`` or ``halt``.
        allow: Packages whose classes its config may name next to ours; permissions in the config itself do not count.

    Raises:
        UserError: This is no run directory, it lacks the folder, or its config is not accepted.
    """
    folder = user_path(find_run(path, part=part).path)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"run={path}: no run directory ({HOLDS})")
    if not is_claimed(folder):
        with suppress(OSError):
            restore_folder(folder / part)
    if not (folder / part).is_dir():
        raise UserError(f"run={path}: has no {part}/; its status is {run_status(folder)!r}")
    try:
        cfg = stored_config(folder / "config.yaml")
        if not all(isinstance(cfg.get(name), DictConfig) for name in GROUPS):
            raise ValueError("it is not the config of a run")
        check(completed(cfg), allow=allow)
    except (ValueError, OmegaConfBaseException, UserError) as error:
        raise UserError(f"run={path}: config.yaml cannot be used: {error}") from None
    return folder, cfg


def completed(cfg: DictConfig) -> DictConfig:
    """The config of a run; keys that have been added since it was trained get their value from ``conf/``."""
    bases = {"model": f"_{cfg.model.family}", "peft": "_base", "generation": "_base"}
    sets = cfg.data.get("sets")
    for data in (cfg.data, *(sets.values() if isinstance(sets, DictConfig) else ())):
        if isinstance(data, DictConfig):
            _add_missing(data, _own_config(data))
            _add_missing(data, _read("data/_base.yaml"))
    for group, base in bases.items():
        _add_missing(cfg[group], _read(f"{group}/{base}.yaml"))
    return cfg


def _own_config(data: DictConfig) -> dict[str, Any]:
    """The file of ``conf/data`` with the class of this data set; empty for a set from outside."""
    configs = (_read(f"data/{file.name}") for file in conf_dir().glob("data/*.yaml"))
    return next((keys for keys in configs if keys.get("_target_") == data.get("_target_")), {})


def _read(name: str) -> dict[str, Any]:
    keys: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / name))
    return {key: value for key, value in keys.items() if key != "defaults" and value != "???"}


def _add_missing(node: DictConfig, defaults: dict[str, Any]) -> None:
    for key, value in defaults.items():
        if key not in node:
            node[key] = value
