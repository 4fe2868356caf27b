"""Remember what Hydra composes from ``conf/``: composing, three times per command line, is a third of the time of the tests."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import Overrides, create_defaults_list

from llmft.config.paths import conf_dir

REAL_LOAD = ConfigRepository.load_config
REAL_COMPOSE = ConfigLoaderImpl._compose_config_from_defaults_list
NAME = "create_defaults_list"  # as ConfigLoaderImpl calls it
_kept: dict[Any, Any] = {}


def install() -> Callable[[], None]:
    """Let Hydra remember files, defaults lists, and what it merges of them; returns a function that undoes it.

    A folder of a user's (``--config-dir``) is read anew each time. Command-line values are applied to a copy, by Hydra.
    """
    ConfigRepository.load_config = _load_config
    setattr(config_loader_impl, NAME, _create_defaults_list)
    ConfigLoaderImpl._compose_config_from_defaults_list = _compose
    return _undo


def _undo() -> None:
    ConfigRepository.load_config = REAL_LOAD
    setattr(config_loader_impl, NAME, create_defaults_list)
    ConfigLoaderImpl._compose_config_from_defaults_list = REAL_COMPOSE


def _remembered(repo: Any, key: Any, make: Callable[[], Any]) -> Any:
    sources = repo.sources if isinstance(repo, ConfigRepository) else repo.get_sources()
    places = tuple((source.provider, source.path) for source in sources)
    if any(place.startswith("file:") and place != conf_dir().as_uri() for _, place in places):
        return make()
    if (places, key) not in _kept:
        _kept[places, key] = make()
    return _kept[places, key]


def _load_config(self: ConfigRepository, config_path: str) -> Any:
    return copy.deepcopy(_remembered(self, ("file", config_path), lambda: REAL_LOAD(self, config_path)))


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
    return copy.deepcopy(_remembered(repo, key, merge))
