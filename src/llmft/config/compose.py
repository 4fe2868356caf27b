"""Compose a command's config, and explain overrides that Hydra rejects."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config.override_text import parse_fault
from llmft.config.paths import conf_dir
from llmft.config.suggest import key_hint, option_hint
from llmft.config.tree import walk
from llmft.utils.errors import UserError
from llmft.utils.text import first_line


def composition_faults(
    command: str,
    overrides: Sequence[str],
    config_dir: str | None = None,
    *,
    typed: Mapping[str, str] | None = None,
) -> list[str]:
    """Errors that Hydra would raise for these overrides, each with a hint; empty if the config composes.

    Args:
        command: Name of the command, which is the name of its config in conf/.
        overrides: Hydra overrides from the command line.
        config_dir: The user's ``--config-dir``, if any.
        typed: Values by key as they were typed, where ``overrides`` is one job of a sweep; hints repeat them.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from yaml import YAMLError

    if config_dir and not Path(config_dir).is_dir():
        return [f"--config-dir={config_dir}: no such folder"]
    roots = [conf_dir(), *([Path(config_dir).resolve()] if config_dir else [])]
    search = search_path(config_dir)

    def compose_error(given: Sequence[str]) -> str | None:
        try:
            compose(command, overrides=[*search, *given], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, YAMLError, OSError, ValueError) as error:
            return str(error) or type(error).__name__
        return None

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        error = compose_error(overrides)
        if error is None:
            return []
        groups = [o for o in overrides if _is_group(o.partition("=")[0], roots) and compose_error([o]) is None]
        errors = [(o, compose_error([*groups, o])) for o in overrides if o not in groups]
        composes = compose_error(groups) is None
        known = config_keys(compose(command, overrides=[*search, *groups])) if composes else []
    explain = Explanation(known, roots, typed or {})
    faults = [explain(override, reason) for override, reason in errors if reason]
    return faults or [first_line(error)]


def composed_again(command: str, overrides: Sequence[str]) -> DictConfig:
    """The config of a command from other overrides than those of the running Hydra job, with the job's ``--config-dir``.

    Raises:
        UserError: It does not compose.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    config_dir = next((source.path for source in sources if source.provider == "command-line"), None)
    if faults := composition_faults(command, overrides, config_dir):
        raise UserError.from_faults("command line", faults)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):  # Hydra's own state is restored afterwards
        return compose(command, overrides=[*search_path(config_dir), *overrides])


def search_path(config_dir: str | None) -> list[str]:
    """The override that adds the user's ``--config-dir`` where a config is composed without the command line."""
    return [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []


def _is_group(key: str, roots: Sequence[Path]) -> bool:
    return any((root / key.lstrip("+~").partition("@")[0]).is_dir() for root in roots)


def config_keys(cfg: DictConfig) -> list[str]:
    """All keys and sections, as dotted paths without list items and private keys such as ``_target_``."""
    paths = (path for path, _ in walk(OmegaConf.to_container(cfg, resolve=False)))
    return [path for path in paths if path and "[" not in path and not re.search(r"(^|\.)_", path)]


class Explanation(NamedTuple):
    """Explains overrides that Hydra refuses; the fields are those of ``composition_faults``, and all keys that exist."""

    known: list[str]
    roots: Sequence[Path]
    typed: Mapping[str, str]

    def __call__(self, override: str, reason: str) -> str:
        """One line: what is wrong with the override, and what it should be."""
        if fault := parse_fault(override):
            return fault
        given, _, value = override.partition("=")
        key = given.lstrip("+~")
        if _is_group(key, self.roots) and ("Could not find" in reason or "MissingConfig" in reason):
            return self._no_option(override, key, value)
        if "Could not override" in reason or "not in struct" in reason:
            return self._no_key(key, self.typed.get(key, value).strip("'"))
        lines = (line.strip() for line in reason.splitlines() if "See http" not in line)
        return f"{override}: {' '.join(line for line in lines if line)}"

    def _no_option(self, override: str, group: str, value: str) -> str:
        options = sorted({f.stem for root in self.roots for f in (root / group).glob("[!_]*.yaml")})
        value = value.strip("'")
        hint = option_hint(group, value, options)
        path = f", or {group}.path=..." if group in ("data", "model") else ""
        return f"{override}: no such option.{hint}" + ("" if hint else f" Available: {', '.join(options)}{path}")

    def _no_key(self, key: str, value: str) -> str:
        hint = key_hint(key, value, self.known)
        parent = key.rpartition(".")[0]
        siblings = [name for name in self.known if name.rpartition(".")[0] == parent]
        top = [name for name in self.known if "." not in name]
        listed = f" Available: {', '.join(siblings or top)}" if not hint and self.known else ""
        return f"{key}: no such key.{hint}{listed}"
