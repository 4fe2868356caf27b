"""Command-line arguments: overrides checked with all faults in one message."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmft.config.compose import composition_faults
from llmft.config.flags import parse_arguments
from llmft.config.hydra_precheck import GivenConfig, swept_jobs
from llmft.config.override_text import quoted
from llmft.config.paths import conf_dir
from llmft.config.redact import hide_environment
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.text import did_you_mean

# Packages that our own launchers and sweepers need.
NEEDED = {"ray": ("ray",), "optuna": ("optuna",)}


def check_command_line(command: str, arguments: list[str], *, multirun: bool) -> list[str]:
    """Check the overrides with our own messages before Hydra parses them.

    Args:
        command: E.g. ``train``.
        arguments: Flags and overrides, as ``quoted`` returns them.
        multirun: Whether this is a sweep, whose values may be lists.

    Returns:
        The output folder that was checked, as an override, if a file of ``--config-dir`` could name another one later.

    Raises:
        UserError: All faults in one message.
    """
    parsed = parse_arguments(arguments)
    if faults := plugin_faults(parsed.overrides):
        raise UserError.from_faults("command line", faults)
    given = GivenConfig.of(command, parsed.overrides, parsed.config_dir, multirun=multirun)
    overrides = given.of_task
    jobs = swept_jobs(overrides) if multirun else [overrides]
    typed = {key.lstrip("+~"): value for key, _, value in (override.partition("=") for override in overrides)}
    faults = dict.fromkeys(
        fault for job in jobs for fault in composition_faults(command, job, parsed.config_dir, typed=typed)
    )
    if faults:
        raise UserError.from_faults("command line", list(faults), shown=len(faults))
    # only these can change what Hydra itself calls
    return given.checked_folder() if given.of_hydra or parsed.config_dir else []


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
        hide_environment(whole)
        cfg = whole.copy()
        with open_dict(cfg):
            del cfg["hydra"]
    Path(whole.hydra.runtime.output_dir).mkdir(parents=True, exist_ok=True)
    return cfg
