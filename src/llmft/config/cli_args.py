"""Command-line arguments: overrides checked with all faults in one message."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import open_dict

from llmft.config.compose import composition_faults, search_path
from llmft.config.flags import parse_arguments
from llmft.config.hydra_allowlist import hydra_faults, hydra_write_faults, pinned_folder
from llmft.config.override_text import parse_fault, quoted
from llmft.config.paths import conf_dir
from llmft.config.write_paths import OUTPUTS, Writable, path_faults
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.text import did_you_mean, first_line

# Packages that our own launchers and sweepers need.
NEEDED = {"ray": ("ray",), "optuna": ("optuna",)}


def check_command_line(
    command: str, arguments: list[str], *, multirun: bool, data_hint: Callable[[str], str] | None = None
) -> None:
    """Check the overrides with our own messages before Hydra parses them.

    Args:
        command: E.g. ``train``.
        arguments: Flags and overrides, as ``quoted`` returns them.
        multirun: Whether this is a sweep, whose values may be lists.
        data_hint: The options that read a data file, given its path, for ``data=FILE``.

    Raises:
        UserError: All faults in one message.
    """
    parsed = parse_arguments(arguments)
    if faults := plugin_faults(parsed.overrides):
        raise UserError.from_faults("command line", faults)
    overrides = [o for o in parsed.overrides if not o.lstrip("+~").startswith("hydra")]
    jobs = swept_jobs(overrides) if multirun else [overrides]
    typed = {key.lstrip("+~"): value for key, _, value in (override.partition("=") for override in overrides)}
    faults = dict.fromkeys(
        fault
        for job in jobs
        for fault in composition_faults(command, job, parsed.config_dir, typed=typed, data_hint=data_hint)
    )
    of_hydra = [o for o in parsed.overrides if o.lstrip("+~").startswith("hydra")]
    if not faults and (of_hydra or parsed.config_dir):  # only these can change what Hydra itself calls
        given = GivenConfig.of(command, [*overrides, *of_hydra], parsed.config_dir, multirun=multirun)
        faults |= dict.fromkeys(fault for job in _with_params(given, overrides) for fault in given.faults(job))
    if faults:
        raise UserError.from_faults("command line", list(faults), shown=len(faults))


class GivenConfig(NamedTuple):
    """What the command line gives Hydra.

    Attributes:
        command: E.g. ``train``.
        overrides: All of the command line, those of Hydra too.
        config_dir: ``--config-dir``, whose files are not trusted.
        multirun: Whether this is a sweep.
    """

    command: str
    overrides: list[str]
    config_dir: str | None
    multirun: bool

    @classmethod
    def of(cls, command: str, overrides: Sequence[str], config_dir: str | None, *, multirun: bool) -> "GivenConfig":
        """As the fields; ``output_dir`` of a sweep is Hydra's folder of the sweep."""
        folder = [f"hydra.sweep.{o[len('output_') :]}" for o in overrides if multirun and o.startswith("output_dir=")]
        return cls(command, [*overrides, *folder], config_dir, multirun)

    @property
    def of_hydra(self) -> list[str]:
        """The overrides of Hydra's own config."""
        return [o for o in self.overrides if o.lstrip("+~").startswith("hydra")]

    def composed(self, job: Sequence[str]) -> Any:
        """The config of a job with its ``hydra`` node."""
        from hydra import compose, initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra

        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            overrides = [*search_path(self.config_dir), *job, *self.of_hydra]
            return compose(self.command, overrides=overrides, return_hydra_config=True)

    def faults(self, job: Sequence[str]) -> list[str]:
        """Faults in what Hydra itself would call, import or open before a job begins, and in what the job would write."""
        try:
            composed = self.composed(job)
        except Exception as error:  # Hydra's and OmegaConf's errors have no common base
            return [first_line(error)]
        named = {override.partition("=")[0] for override in self.overrides}
        typed = [*(override for override in job if override.partition("=")[0] in named), *self.of_hydra]
        found = list(hydra_faults(composed.hydra, typed))
        if not self.config_dir or found:
            return found
        found = list(hydra_write_faults(composed, typed, multirun=self.multirun))
        return found or self._write_faults(composed, typed)

    def _write_faults(self, composed: Any, typed: Sequence[str]) -> list[str]:
        from llmft.config.schema import COMMANDS  # pydantic, which --cfg does not need
        from llmft.config.typed import resolved

        with open_dict(composed):
            del composed["hydra"]
        plain = resolved(composed)
        return list(path_faults(plain, COMMANDS[self.command].writes, Writable.by(typed, OUTPUTS)))


def _with_params(given: GivenConfig, overrides: list[str]) -> list[list[str]]:
    """Jobs that use each swept value once, also those of ``hydra.sweeper.params``."""
    if not given.multirun:
        return [overrides]
    jobs = swept_jobs(overrides)
    try:
        params = given.composed(jobs[0]).hydra.sweeper.get("params") or {}
    except Exception:  # said for the jobs
        return jobs
    named = {override.partition("=")[0] for override in overrides}
    return swept_jobs([*(f"{key}={value}" for key, value in params.items() if key not in named), *overrides])


def pinned(command: str, arguments: list[str], *, multirun: bool) -> list[str]:
    """The output folder that was checked, as an override, if a file of ``--config-dir`` could name another one.

    Args:
        command: E.g. ``train``.
        arguments: Flags and overrides, as for ``check_command_line``.
        multirun: Whether this is a sweep.
    """
    parsed = parse_arguments(arguments)
    if not parsed.config_dir:
        return []
    given = GivenConfig.of(command, parsed.overrides, parsed.config_dir, multirun=multirun)
    own = [o for o in parsed.overrides if o not in given.of_hydra]
    job = swept_jobs(own)[0] if multirun else own
    folder = pinned_folder(given.composed(job), given.overrides, multirun=multirun)
    return [quoted(override, multirun=False) for override in folder]


def swept_jobs(overrides: list[str]) -> list[list[str]]:
    """Overrides of single jobs that together use every swept value once (not every combination: faults are in the values).

    Raises:
        UserError: An override cannot be parsed.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob

    if faults := [fault for override in overrides if (fault := parse_fault(override))]:
        raise UserError.from_faults("command line", faults)
    parsed = OverridesParser.create().parse_overrides(overrides)
    choices = []
    for override in parsed:
        if isinstance(override.value(), Glob):
            continue  # Hydra expands it to existing options only
        values = [f"{override.get_key_element()}={v}" for v in _swept(override)]
        choices.append(values or [override.input_line or ""])
    return [[c[min(i, len(c) - 1)] for c in choices] for i in range(max(map(len, choices), default=1))]


def _swept(override: Any) -> list[str]:
    if override.is_interval_sweep():  # of an Optuna search
        return [str(override.value().start), str(override.value().end)]
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else []


def plugin_faults(overrides: list[str]) -> list[str]:
    """Launchers and sweepers that do not exist or are not installed."""
    from omegaconf import OmegaConf

    faults = []
    for override in overrides:
        group, _, name = override.partition("=")
        if group not in ("hydra/launcher", "hydra/sweeper"):
            continue
        ours = {file.stem: file for file in (conf_dir() / group).glob("*.yaml")}
        if name not in ours:
            known = {"basic", *ours, *_of_plugins(group)}
            if name not in known:
                faults.append(
                    f"{override}: no such option.{did_you_mean(name, known)} There are: {', '.join(sorted(known))}"
                )
            continue
        packages = (*NEEDED.get(name, ()), str(OmegaConf.load(ours[name])._target_).rpartition(".")[0])
        if not all(_is_there(package) for package in packages):
            extra = name.partition("_")[0]
            faults.append(f"{override}: is not installed; pip install 'llmft[{extra}]'")
    return faults


def _of_plugins(group: str) -> list[str]:
    """Options of plugins, including the user's own."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # discovers them
    try:
        return [option.removesuffix(".yaml") for option in ConfigStore.instance().list(group)]
    except OSError:  # the group has none
        return []


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def resumed_dir(arguments: Sequence[str]) -> list[str]:
    """Let ``resume=RUN`` continue inside RUN, unless ``output_dir`` is given.

    Raises:
        UserError: There is no such run.
    """
    given = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    if given.get("resume", "null") == "null":
        return []
    folder = given["resume"].strip("'")
    if not (user_path(folder) / "config.yaml").is_file():
        raise UserError(f"resume={folder}: no run directory (it would hold config.yaml, run.json and checkpoints/)")
    return [] if "output_dir" in given else [f"output_dir={given['resume']}"]


def check_output(overrides: list[str]) -> None:
    """Create the folder ``output_dir``; Hydra would show a traceback if that fails.

    Raises:
        UserError: It cannot be created.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "output_dir" and "${" not in value:
            try:
                Path(value.strip("'")).mkdir(parents=True, exist_ok=True)
            except (OSError, ValueError) as error:
                raise UserError(f"output_dir={value}: cannot be made ({error})") from None


def composed(command: str, arguments: Sequence[str]) -> Any:
    """Compose the config that a command's ``main`` gets, in this process; Hydra's own config is set as in ``hydra.main``.

    Args:
        command: E.g. ``train``.
        arguments: Overrides as on the command line; no flags.

    Raises:
        UserError: All faults of the overrides in one message.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    if flags := [argument for argument in arguments if argument.startswith("-")]:
        raise UserError(f"{flags[0]}: flags are for the command line; pass key=value")
    overrides = [quoted(argument, multirun=False) for argument in arguments]
    check_command_line(command, overrides, multirun=False)
    check_output(overrides)
    overrides += resumed_dir(overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        whole = compose(command, overrides=overrides, return_hydra_config=True)
        OmegaConf.set_readonly(whole.hydra, False)
        with open_dict(whole):
            whole.hydra.mode = "RUN"
            whole.hydra.runtime.output_dir = str(Path(whole.hydra.run.dir).absolute())
        HydraConfig.instance().set_config(whole)
        cfg = whole.copy()
        with open_dict(cfg):
            del cfg["hydra"]
    Path(whole.hydra.runtime.output_dir).mkdir(parents=True, exist_ok=True)
    return cfg
