"""Open a run directory: its config, checked before anything in it is used."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config.groups import command_config, group_config, matching_config
from llmft.config.redact import hide_environment
from llmft.config.schema import TrainConfig
from llmft.config.stored import stored_config
from llmft.config.typed_overrides import typed_overrides
from llmft.config.validate import check
from llmft.config.write_paths import STUDY, Writable
from llmft.runs.find import HOLDS, PASSPORT, find_run
from llmft.runs.record import run_status
from llmft.utils.console import say
from llmft.utils.errors import UserError
from llmft.utils.files import restore_folder
from llmft.utils.lock import is_claimed
from llmft.utils.paths import user_path
from llmft.utils.shell import argument

GROUPS = ("model", "data", "peft", "generation", "prompt")


def open_run(path: str, part: str = "model", allow: Sequence[str] = ()) -> tuple[Path, TrainConfig]:
    """Open a run directory.

    Args:
        path: As given by the user; ``latest`` and a folder with one run are accepted too.
        part: The folder in it that the command needs: ``model`` or ``halt``.
        allow: Packages whose classes its config may name next to ours; permissions in the config itself do not count.

    Raises:
        UserError: This is no run directory, it lacks the folder, or its config is not accepted.
    """
    folder = user_path(find_run(path, part=part).path)
    if (folder / PASSPORT).is_file():
        raise UserError(
            f"run={path}: is an exported folder; answer, chat, serve and evaluate take it, others need the run"
        )
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
        cfg = completed(cfg)
        hide_environment(cfg)
        relocate(cfg, folder)
        config = check(cfg, TrainConfig, allow=allow, stored=True)
    except (ValueError, OmegaConfBaseException, UserError) as error:
        raise UserError(f"run={path}: config.yaml cannot be used: {error}") from None
    return folder, config


def relocate(cfg: DictConfig, folder: Path) -> None:
    """Point the output paths of a stored config at the folder where the run is now, and drop a cache elsewhere.

    The run may have been moved, or sent by somebody: its config does not decide where files are written. A cache that
    ``data.cache`` or ``allow_writes`` of the command line names is kept.
    """
    before, cfg.output_dir = str(cfg.get("output_dir") or ""), str(folder)
    cfg.resume = None  # of how the run was made
    for node in (cfg.get("logger") or {}).values():
        for key, value in node.items_ex(resolve=False) if isinstance(node, DictConfig) else ():
            if isinstance(value, str) and before and value.removeprefix("file:").startswith(before):
                node[key] = value.replace(before, str(folder), 1)
    for node in (cfg.get("callbacks") or {}).values():
        if isinstance(node, DictConfig) and node.get("study"):
            node.study = str(folder.absolute().parent / STUDY)
    writable = Writable.by(typed_overrides(), folder)
    cache = OmegaConf.select(cfg, "data.cache")
    if isinstance(cache, str) and cache != "off" and not writable.allows("data.cache", cache):
        say(
            f"data.cache={cache} of the stored config is not used, since it is outside of the run; llmft's own cache is. "
            f"{argument('allow_writes', [cache])} allows it",
            style="green",
        )
        cfg.data.cache = None


def completed(cfg: DictConfig) -> DictConfig:
    """The config of a run; keys that have been added since it was trained get their value from ``conf/``."""
    for empty in ("experiment", "debug"):  # of runs before both were without keys of their own
        if not cfg.get(empty):
            cfg.pop(empty, None)
    sets = cfg.data.get("sets")
    for data in (cfg.data, *(sets.values() if isinstance(sets, DictConfig) else ())):
        if isinstance(data, DictConfig):
            _add_missing(data, matching_config("data", "_target_", data.get("_target_")))
            _add_missing(data, group_config("data", "_base"))
    # a run from before these keys goes on with the sums that it began with, to the last bit
    _add_missing(cfg.model, {"shared_prefix": "off"})
    if "r" in cfg.peft:
        _add_missing(cfg.peft, {"compute_dtype": "float32"})
    for name, defaults in _defaults(cfg):
        if name not in cfg:
            cfg[name] = {}
        if isinstance(cfg[name], DictConfig):
            _add_missing(cfg[name], defaults)
    for callback in (cfg.get("callbacks") or {}).values():
        if isinstance(callback, DictConfig):
            _add_missing(callback, _callback_config(str(callback.get("_target_"))))
    # runs of versions without `performance` computed everything as transformers does; their `evaluate` and `report` are
    # completed at any depth
    _add_missing(cfg, {**command_config("train"), "performance": "plain", "callbacks": {}, "logger": {}})
    return cfg


def _defaults(cfg: DictConfig) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The groups of a training config with the keys that they have in ``conf/``, except ``data`` and ``callbacks``."""
    yield "model", group_config("model", f"_{cfg.model.family}")
    yield "peft", matching_config("peft", "method", cfg.peft.get("method"))
    yield "generation", group_config("generation", "_base")
    yield "trainer", group_config("trainer", "default")
    yield "judge", matching_config("judge", "kind", OmegaConf.select(cfg, "judge.kind") or "none")
    for group in ("optim", "scheduler"):
        yield group, matching_config(group, "_target_", OmegaConf.select(cfg, f"{group}._target_"))


def _callback_config(target: str) -> Mapping[Any, Any]:
    """The keys of a callback in ``conf/callbacks``; empty for a callback from outside."""
    nodes: Any = OmegaConf.to_container(group_config("callbacks", "default"))
    return next((node for node in nodes.values() if node["_target_"] == target), {})


def _add_missing(node: DictConfig, defaults: Mapping[Any, Any]) -> None:
    for key, value in defaults.items_ex(resolve=False) if isinstance(defaults, DictConfig) else defaults.items():
        if key not in node and value != "???":
            node[key] = value
        elif isinstance(value, Mapping) and isinstance(node.get(key), DictConfig):
            _add_missing(node[key], value)
