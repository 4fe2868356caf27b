"""Check what Hydra itself would do with a command line and the files of ``--config-dir``, before it starts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig, open_dict

from llmft.config.compose import search_path
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

    @property
    def of_task(self) -> list[str]:
        """The overrides of the command's config."""
        return [o for o in self.overrides if not o.lstrip("+~").startswith("hydra")]

    def job_config(self, job: Sequence[str]) -> Any:
        """The config of a job with its ``hydra`` node."""
        return self._composed([*job, *self.of_hydra], multirun=False)

    def sweep_config(self) -> Any:
        """The config with which Hydra starts a sweep: without swept values, and without those of ``hydra.sweeper.params``.

        Raises:
            UserError: Hydra cannot compose it.
        """
        try:
            return self._composed(self.overrides, multirun=True)
        except Exception as error:  # Hydra's and OmegaConf's errors have no common base
            raise UserError.from_faults("command line", [first_line(error)]) from None

    def _composed(self, overrides: Sequence[str], *, multirun: bool) -> Any:
        from hydra import initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra
        from hydra.types import RunMode

        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            cfg = hydra.compose_config(
                self.command,
                [*search_path(self.config_dir), *overrides],
                RunMode.MULTIRUN if multirun else RunMode.RUN,
                from_shell=False,
            )
        hide_environment(cfg)
        return cfg

    def checked_folder(self) -> list[str]:
        """Check what Hydra would call, import and open, and what jobs would write.

        Returns:
            The output folder that was checked, as an override, if a file of ``--config-dir`` could name another one later.

        Raises:
            UserError: All faults in one message.
        """
        if self.multirun:
            start = self.sweep_config()
            faults = self._faults_of_hydra(start, self.overrides)
            for job in jobs_with_params(start, self.of_task):
                faults += self._job_faults(job)[1]
        else:
            start, faults = self._job_faults(self.of_task)
        if faults:
            faults = list(dict.fromkeys(faults))
            raise UserError.from_faults("command line", faults, shown=len(faults))
        folder = pinned_folder(start, self.overrides, multirun=self.multirun) if self.config_dir else []
        return [quoted(override, multirun=False) for override in folder]

    def _job_faults(self, job: Sequence[str]) -> tuple[Any, list[str]]:
        """The config of a job, and what is wrong with it."""
        try:
            composed = self.job_config(job)
        except Exception as error:  # Hydra's and OmegaConf's errors have no common base
            return None, [first_line(error)]
        named = {override.partition("=")[0] for override in self.overrides}
        typed = [*(override for override in job if override.partition("=")[0] in named), *self.of_hydra]
        return composed, self._faults_of_hydra(composed, typed, of_job=True)

    def _faults_of_hydra(self, composed: Any, typed: Sequence[str], *, of_job: bool = False) -> list[str]:
        found = list(hydra_faults(composed.hydra, typed))
        if not self.config_dir or found:
            return found
        found = list(hydra_write_faults(composed, typed, multirun=self.multirun))
        return [*found, *self._write_faults(composed, typed)] if of_job else found

    def _write_faults(self, composed: Any, typed: Sequence[str]) -> list[str]:
        from llmft.config.schema import COMMANDS  # pydantic, which --cfg does not need
        from llmft.config.typed import resolved

        cfg = composed.copy()
        with open_dict(cfg):
            del cfg["hydra"]
        return list(path_faults(resolved(cfg), COMMANDS[self.command].writes, Writable.by(typed, OUTPUTS)))


def jobs_with_params(start: Any, overrides: list[str]) -> list[list[str]]:
    """Jobs that use each swept value once, also those of ``hydra.sweeper.params``.

    Args:
        start: The config with which Hydra starts the sweep.
        overrides: Those of the command line, without Hydra's own.
    """
    params = start.hydra.sweeper.get("params") or {}
    named = {override.partition("=")[0] for override in overrides}
    given = params.items() if isinstance(params, DictConfig) else ()
    return swept_jobs([*(f"{key}={value}" for key, value in given if key not in named), *overrides])


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
