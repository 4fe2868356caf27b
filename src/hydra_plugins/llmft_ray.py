"""Hydra launcher for Ray; the published plugin pins a cloudpickle version that is incompatible with joblib."""

from collections.abc import Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


class RayLauncher(Launcher):
    """Run each job as a Ray task.

    Args:
        ray: ``init``, arguments of ``ray.init``; ``remote``, options of ``ray.remote``: the resources of a job. The published
            plugin has the same keys, so that its schema, if it is installed, accepts this config.
    """

    def __init__(self, ray: DictConfig) -> None:
        self.init, self.remote = OmegaConf.to_container(ray.init), OmegaConf.to_container(ray.remote)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep context, task function and config of the jobs."""
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, as many in parallel as Ray's resources allow."""
        import ray  # pyright: ignore[reportMissingImports]

        if not ray.is_initialized():
            # Ray's own log would drown the output of the jobs
            ray.init(**{"include_dashboard": False, "logging_level": "error", **self.init})  # pyright: ignore
        task = ray.remote(**self.remote)(_job)  # pyright: ignore
        state = Singleton.get_state()
        jobs = [
            task.remote(self.context, self.task, self.config, list(overrides), number, state)
            for number, overrides in enumerate(job_overrides, start=initial_job_idx)
        ]
        return ray.get(jobs)


def _job(
    context: HydraContext, task: TaskFunction, config: DictConfig, overrides: list[str], number: int, state: Any
) -> JobReturn:
    setup_globals()
    Singleton.set_state(state)
    job_config = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job_config):
        job_config.hydra.job.id = job_config.hydra.job.num = number
    return run_job(
        hydra_context=context,
        task_function=task,
        config=job_config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
