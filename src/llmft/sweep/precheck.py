"""Before the first job of a sweep: what every job would be refused for is said once, and nothing is written."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.cli_args import swept_jobs
from llmft.config.compose import search_path
from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.target_allowlist import allowed_targets
from llmft.config.validate import check, check_early
from llmft.sweep.job import check_before_imports
from llmft.utils.errors import UserError


def check_sweep(command: str, arguments: Sequence[str]) -> None:
    """Refuse a sweep whose jobs all have the same fault, or whose only swept key has no valid value.

    The jobs that are checked use every swept value once, which is not every combination; faults of some jobs are left to
    these jobs. The model's architecture is checked only where the jobs run in this process, which imports the libraries anyway.

    Args:
        command: E.g. ``train``.
        arguments: Flags and overrides, with ``key=a,b`` for swept keys.

    Raises:
        UserError: All faults in one message.
    """
    from hydra._internal.utils import get_args_parser

    parsed = get_args_parser().parse_args(list(arguments))
    own = [override for override in parsed.overrides if not override.lstrip("+~").startswith("hydra")]
    hydra = [*search_path(parsed.config_dir), *(override for override in parsed.overrides if override not in own)]
    first = _composed(command, [*hydra, *swept_jobs(own)[0]])
    params = first.hydra.sweeper.get("params") or {}  # a sweep in a file
    given = {override.partition("=")[0] for override in own}
    jobs = swept_jobs([*(f"{key}={value}" for key, value in params.items() if key not in given), *own])
    is_here = first.hydra.runtime.choices["hydra/launcher"] == "basic"
    for faults_of in (_early_faults, *((_all_faults,) if is_here and command == "train" else ())):
        if common := _of_every_job(
            jobs, lambda job, find=faults_of: find(command, _composed(command, [*hydra, *job]), job)
        ):
            raise UserError.from_faults("no job of this sweep can run", common, shown=len(common))


def _of_every_job(jobs: Sequence[Sequence[str]], find: Callable[[Sequence[str]], list[str]]) -> list[str]:
    """The faults that all jobs have; if they differ in one key only, all faults, provided that no job is without any."""
    found: list[list[str]] = []
    for job in jobs:
        found.append(find(job))
        if not found[-1]:
            return []
    if sum(len(set(values)) > 1 for values in zip(*jobs, strict=True)) <= 1:
        return list(dict.fromkeys(fault for faults in found for fault in faults))
    return [fault for fault in found[0] if all(fault in faults for faults in found)]


def _composed(command: str, overrides: Sequence[str]) -> Any:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, overrides=list(overrides), return_hydra_config=True)


def _early_faults(command: str, cfg: Any, job: Sequence[str]) -> list[str]:
    plain = _without_hydra(cfg)
    return list(_faults_of(lambda: check_early(plain, command, job))) or list(
        _faults_of(lambda: check_before_imports(command, plain))
    )


def _all_faults(_: str, cfg: Any, job: Sequence[str]) -> list[str]:
    from llmft.models.architecture_check import (
        architecture_faults,
    )  # imports torch and transformers, which takes seconds

    plain = _without_hydra(cfg)
    if plain.get("resume"):
        return []
    return list(
        _faults_of(lambda: check(plain, TrainConfig, architecture=architecture_faults, allow=allowed_targets(job)))
    )


def _without_hydra(cfg: Any) -> DictConfig:
    nodes = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(nodes, dict)
    return OmegaConf.create({str(key): node for key, node in nodes.items() if key != "hydra"})


def _faults_of(checks: Callable[[], object]) -> Iterator[str]:
    try:
        checks()
    except UserError as error:
        first, *faults = str(error).split("\n  - ")  # as from_faults lists them
        yield from faults or [first]
