"""Give a job of a search up that does worse than others did at the same validation; off outside of a search."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from llmft.utils.errors import Pruned


class Pruning(pl.Callback):
    """Tells the study each value of the objective, and stops if its pruner says so.

    Args:
        monitor: The objective.
        study: The study's file; None outside of a search.
        trial: The job's number in the study.
        pruner: ``none``, ``median`` (worse than half of the others at the same validation) or ``halving``.
        warmup: Validations before a job may be given up.
        startup: Jobs that are finished before any is given up.
    """

    def __init__(
        self, monitor: str, study: str | None, trial: int | None, pruner: str, warmup: int, startup: int
    ) -> None:
        self.monitor, self.study, self.trial = monitor, study, trial
        self.pruner, self.warmup, self.startup = pruner, warmup, startup
        self.validations = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Report; what the first process finds, all do.

        Raises:
            Pruned: The study gives the job up.
        """
        if self.study is None or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.validations += 1
        value = float(trainer.callback_metrics[self.monitor])
        if trainer.strategy.broadcast(trainer.is_global_zero and self._is_hopeless(value)):
            what = f"{self.monitor} was {value:.4g} at validation {self.validations}, worse than others of the search"
            raise Pruned(f"given up at step {trainer.global_step}: {what}", value)

    def _is_hopeless(self, value: float) -> bool:
        import optuna

        pruners = {
            "none": optuna.pruners.NopPruner(),
            "median": optuna.pruners.MedianPruner(self.startup, self.warmup),
            "halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, self.warmup)),
        }
        study = optuna.load_study(
            study_name=NAME, storage=storage_of(Path(str(self.study))), pruner=pruners[self.pruner]
        )
        trial = next(t for t in study.get_trials(deepcopy=False) if t.number == self.trial)
        live = optuna.trial.Trial(study, trial._trial_id)
        if self.validations not in trial.intermediate_values and math.isfinite(value):
            live.report(value, self.validations)
        return live.should_prune()

    def state_dict(self) -> dict[str, int]:
        """Validations so far."""
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on counting."""
        self.validations = state_dict["validations"]


STUDY = "study.journal"

NAME = "sweep"


def storage_of(file: Path) -> Any:
    """A study's file, which several processes on several machines may write to."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(file)))
