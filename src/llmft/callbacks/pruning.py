"""Prune a trial of a sweep that is worse than others at the same validation; off outside of a sweep."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from llmft.runs.study import NAME, storage_of
from llmft.utils.errors import Pruned


class Pruning(pl.Callback):
    """Report each value of the objective to the Optuna study, and stop if its pruner decides so.

    Args:
        monitor: The objective.
        study: The study's file; None outside of a sweep.
        trial: The number of the trial in the study.
        pruner: ``none``, ``median`` (worse than half of the others at the same validation) or ``halving``.
        warmup: Validations of a trial before it may be pruned.
        startup: Finished trials before any trial is pruned.
    """

    def __init__(
        self, monitor: str, study: str | None, trial: int | None, pruner: str, warmup: int, startup: int
    ) -> None:
        self.monitor, self.study, self.trial = monitor, study, trial
        self.pruner, self.warmup, self.startup = pruner, warmup, startup
        self.validations = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Report the value; rank 0 decides for all ranks.

        Raises:
            Pruned: The pruner stops this trial.
        """
        if self.study is None or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.validations += 1
        value = float(trainer.callback_metrics[self.monitor])
        if trainer.strategy.broadcast(trainer.is_global_zero and self._should_prune(value)):
            what = (
                f"{self.monitor} was {value:.4g} at validation {self.validations}, worse than other trials of the sweep"
            )
            raise Pruned(f"pruned at step {trainer.global_step}: {what}", value)

    def _should_prune(self, value: float) -> bool:
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
        """Restore the count."""
        self.validations = state_dict["validations"]
