"""Hydra sweeper that runs an Optuna search; the published plugin pins an Optuna release of 2021."""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Suggest jobs in batches, run them with the launcher, and report their objective to Optuna.

    Args:
        options: The keys of ``conf/hydra/sweeper/optuna.yaml``.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the config and build the launcher."""
        self.searched = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search."""
        from llmft.sweep.optuna_search import OptunaSearch  # Hydra imports this file at every start of any command

        return OptunaSearch(arguments, self.searched, self.launcher, **self.options).run()
