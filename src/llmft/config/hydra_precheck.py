"""Check what Hydra itself would do with a command line and the files of ``--config-dir``, before it starts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from omegaconf import open_dict

from llmft.config.compose import search_path
from llmft.config.flags import parse_arguments
from llmft.config.hydra_allowlist import hydra_faults, hydra_write_faults, pinned_folder
from llmft.config.override_text import parse_fault, quoted
from llmft.config.paths import conf_dir
from llmft.config.redact import hide_environment
from llmft.config.write_paths import OUTPUTS, Writable, path_faults
from llmft.utils.errors import UserError
from llmft.utils.text import first_line


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
            cfg = compose(self.command, overrides=overrides, return_hydra_config=True)
        hide_environment(cfg)
        return cfg

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
        return [*found, *self._write_faults(composed, typed)]

    def _write_faults(self, composed: Any, typed: Sequence[str]) -> list[str]:
        from llmft.config.schema import COMMANDS  # pydantic, which --cfg does not need
        from llmft.config.typed import resolved

        with open_dict(composed):
            del composed["hydra"]
        plain = resolved(composed)
        return list(path_faults(plain, COMMANDS[self.command].writes, Writable.by(typed, OUTPUTS)))


def jobs_with_params(given: GivenConfig, overrides: list[str]) -> list[list[str]]:
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
