"""Remember what Hydra composes from ``conf/``: composing, three times per command line, is a third of the time of the tests."""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import Overrides, create_defaults_list
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import _utils, base, grammar_parser

from llmft.config.paths import conf_dir

REAL_LOAD = ConfigRepository.load_config
REAL_COMPOSE = ConfigLoaderImpl._compose_config_from_defaults_list
REAL_WHOLE = ConfigLoaderImpl._load_configuration_impl
REAL_MAP = defaults_list._create_interpolation_map
REAL_PARSE = grammar_parser.parse
RUN = "hydra.mode=RUN"
NAME = "create_defaults_list"  # as ConfigLoaderImpl calls it
_kept: dict[Any, Any] = {}


def install() -> Callable[[], None]:
    """Let Hydra remember files, defaults lists, what it merges of them, and whole configs; returns a function that undoes it.

    A folder of a user's (``--config-dir``) is read anew each time. Command-line values are applied to a copy, by Hydra; a
    command line composes the same config three times.
    """
    ConfigRepository.load_config = _load_config
    setattr(config_loader_impl, NAME, _create_defaults_list)
    ConfigLoaderImpl._compose_config_from_defaults_list = _compose
    ConfigLoaderImpl._load_configuration_impl = _whole
    defaults_list._create_interpolation_map = _interpolation_map
    _parse_with(cache(REAL_PARSE))  # trees are only read
    return _undo


def _undo() -> None:
    ConfigRepository.load_config = REAL_LOAD
    setattr(config_loader_impl, NAME, create_defaults_list)
    ConfigLoaderImpl._compose_config_from_defaults_list = REAL_COMPOSE
    ConfigLoaderImpl._load_configuration_impl = REAL_WHOLE
    defaults_list._create_interpolation_map = REAL_MAP
    _parse_with(REAL_PARSE)


def _parse_with(parse: Callable[..., Any]) -> None:
    for module in (_utils, base):
        setattr(module, "parse", parse)  # noqa: B010 (not exported)


def _remembered(repo: Any, key: Any, make: Callable[[], Any]) -> Any:
    """A copy of what ``make`` returned the first time; unpickling is eight times as fast as ``copy.deepcopy``."""
    sources = repo.sources if isinstance(repo, ConfigRepository) else repo.get_sources()
    places = tuple((source.provider, source.path) for source in sources)
    if any(source.scheme() == "file" and source.path != str(conf_dir()) for source in sources):
        return make()
    if (places, key) not in _kept:
        made = make()
        _kept[places, key] = pickle.dumps(made)
        return made
    return pickle.loads(_kept[places, key])


def _load_config(self: ConfigRepository, config_path: str) -> Any:
    return _remembered(self, ("file", config_path), lambda: REAL_LOAD(self, config_path))


def _whole(self: ConfigLoaderImpl, config_name: Any, overrides: list[str], *args: Any, **kwargs: Any) -> Any:
    """The config of a command line; llmft composes it under another job name, and Hydra a third time with its mode."""

    def make() -> Any:
        return REAL_WHOLE(self, config_name, given, *args, **kwargs)

    given = [override for override in overrides if override != RUN]
    if any(set(override) & set(",(*?") or "hydra." in override for override in given):  # sweeps, or files of a user's
        given = overrides
        return make()
    cfg = _remembered(self.repository, ("whole", config_name, tuple(given)), make)
    cfg.hydra.runtime.cwd = str(Path.cwd())
    cfg.hydra.job.name = JobRuntime().get("name")
    if RUN in overrides:
        cfg.hydra.mode = RunMode.RUN
        cfg.hydra.overrides.hydra.append(RUN)
    return cfg


def _interpolation_map(overrides: Overrides, defaults: list[Any], self_added: bool) -> Any:
    """Of choices that other choices name (``${model}``): half the time of a defaults list, and seldom needed."""
    needed = any(not one.is_self() and one.is_interpolation() for one in defaults)
    return REAL_MAP(overrides, defaults, self_added) if needed else None


def _create_defaults_list(
    repo: IConfigRepository, config_name: str | None, overrides_list: list[Any], prepend_hydra: bool, skip_missing: bool
) -> Any:
    """Only choices of files decide the list; the other overrides, which set values, are handed on."""
    values = Overrides(repo, overrides_list).config_overrides
    of_values = {id(override) for override in values}
    choices = tuple(override.input_line for override in overrides_list if id(override) not in of_values)
    kept = _remembered(
        repo,
        ("defaults", config_name, choices, prepend_hydra, skip_missing),
        lambda: create_defaults_list(repo, config_name, overrides_list, prepend_hydra, skip_missing),
    )
    return replace(kept, config_overrides=values)


def _compose(self: ConfigLoaderImpl, defaults: list[Any], repo: IConfigRepository) -> Any:
    """Hydra's warning on options that its plugins know too is for the caller at some depth, which is another one here."""

    def merge() -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*is validated against ConfigStore schema.*")
            return REAL_COMPOSE(self, defaults, repo)

    key = ("merged", tuple((repr(default), default.override_key) for default in defaults))
    return _remembered(repo, key, merge)
