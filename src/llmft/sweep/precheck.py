"""Before the first job of a sweep: what every job would be refused for is said once, and nothing is written."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from llmft.config.flags import parse_arguments
from llmft.config.hydra_precheck import GivenConfig, jobs_with_params
from llmft.config.schema import TrainConfig
from llmft.config.target_allowlist import allowed_targets
from llmft.config.validate import check, check_early
from llmft.sweep.job import check_before_imports
from llmft.utils.errors import UserError
from llmft.utils.logging import quiet

# Launchers whose jobs see the files and GPUs of this machine.
ON_THIS_MACHINE = ("basic", "joblib", "submitit_local")


class Job(NamedTuple):
    """A job of a sweep: its overrides, and the config that Hydra composes of them."""

    command: str
    overrides: Sequence[str]
    cfg: DictConfig


def check_sweep(command: str, arguments: Sequence[str]) -> None:
    """Refuse a sweep whose jobs all have the same fault, or whose only swept key has no valid value.

    The jobs that are checked use every swept value once, which is not every combination; faults of some jobs are left to
    these jobs. Data files and GPUs are checked for launchers of this machine only, and the model's architecture where the jobs
    run in this process, which imports the libraries anyway.

    Args:
        command: E.g. ``train``.
        arguments: Flags and overrides, with ``key=a,b`` for swept keys.

    Raises:
        UserError: All faults in one message.
    """
    parsed = parse_arguments(arguments)
    given = GivenConfig.of(command, parsed.overrides, parsed.config_dir, multirun=True)
    start = given.sweep_config()
    jobs = jobs_with_params(start, given.of_task)
    launcher = start.hydra.runtime.choices["hydra/launcher"]
    stages = [_value_faults]
    if launcher in ON_THIS_MACHINE:
        stages.append(_machine_faults)
    if launcher == "basic" and command == "train":
        stages.append(_architecture_faults)
    for faults_of in stages:
        # composed anew for each stage, since a sweep may have many jobs
        found = (faults_of(Job(command, job, given.job_config(job))) for job in jobs)
        if common := _of_every_job(jobs, found):
            raise UserError.from_faults("no job of this sweep can run", common, shown=len(common))


def _of_every_job(jobs: Sequence[Sequence[str]], faults: Iterator[list[str]]) -> list[str]:
    """The faults that all jobs have; if they differ in one key only, all faults, provided that no job is without any."""
    found: list[list[str]] = []
    for of_job in faults:
        if not of_job:
            return []
        found.append(of_job)
    if sum(len(set(values)) > 1 for values in zip(*jobs, strict=True)) <= 1:
        return list(dict.fromkeys(fault for of_job in found for fault in of_job))
    return [fault for fault in found[0] if all(fault in of_job for of_job in found)]


def _value_faults(job: Job) -> list[str]:
    return _faults_of(lambda: check_early(_without_hydra(job.cfg), job.command, job.overrides))


def _machine_faults(job: Job) -> list[str]:
    return _faults_of(lambda: check_before_imports(job.command, _without_hydra(job.cfg)))


def _architecture_faults(job: Job) -> list[str]:
    # torch and transformers, which take seconds
    from llmft.models.architecture_check import architecture_faults

    cfg = _without_hydra(job.cfg)
    if cfg.get("resume"):
        return []
    quiet()
    allow = allowed_targets(job.overrides)
    return _faults_of(
        lambda: check(cfg, TrainConfig, architecture=architecture_faults, allow=allow, overrides=job.overrides)
    )


def _without_hydra(cfg: DictConfig) -> DictConfig:
    nodes = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(nodes, dict)
    return OmegaConf.create({str(key): node for key, node in nodes.items() if key != "hydra"})


def _faults_of(checks: Callable[[], object]) -> list[str]:
    try:
        checks()
    except UserError as error:
        first, *faults = str(error).split("\n  - ")  # as from_faults lists them
        return faults or [first]
    return []
