"""Hyperparameter search with Optuna: each job's values are proposed from the results of earlier jobs."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from llmft.config.metric_names import monitor_mode
from llmft.config.write_paths import STUDY
from llmft.runs.record import run_status
from llmft.runs.study import NAME, storage_of
from llmft.sweep.results import finished_value
from llmft.utils.errors import UserError


class OptunaSearch:
    """One study, stored in the sweep's folder and resumed by the same command.

    Args:
        arguments: The overrides of the command line, with ``a,b``, ``choice``, ``range``, ``interval`` and ``tag(log, ...)``.
        config: The sweep's config.
        launcher: Hydra's; runs the jobs.
        n_trials: Total number of trials (jobs).
        n_jobs: Trials proposed at once.
        direction: ``minimize``, ``maximize``, or ``auto`` by the objective.
        seed: Seed of the sampler.
        sampler: ``tpe`` or ``random``.

    Raises:
        UserError: There is nothing to search, or an option is invalid.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        config: DictConfig,
        launcher: Any,
        *,
        n_trials: int,
        n_jobs: int,
        direction: str,
        seed: int | None,
        sampler: str,
    ) -> None:
        self.launcher, self.folder = launcher, Path(config.hydra.sweep.dir)
        self.fixed, self.space = split(arguments)
        self.n_trials, self.n_jobs = n_trials, n_jobs
        modes = {"min": "minimize", "max": "maximize"}
        self.direction = modes[monitor_mode(config.objective)] if direction == "auto" else direction
        self.sampler, self.seed = sampler, seed
        faults = {
            "n_trials": n_trials >= 1,
            "n_jobs": n_jobs >= 1,
            "direction (minimize, maximize, auto)": self.direction in modes.values(),
            "sampler (tpe, random)": sampler in ("tpe", "random"),
        }
        wrong = [f"hydra.sweeper.{name}: not allowed" for name, right in faults.items() if not right]
        if not self.space:
            wrong.append(
                "nothing to search: no key has several values, such as 'optim.lr=tag(log, interval(1e-5, 1e-3))'"
            )
        if wrong:
            raise UserError.from_faults("hydra/sweeper=optuna", wrong)

    def run(self) -> list[Any]:
        """Run the trials that an interrupted search left, then new ones up to ``n_trials``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        study, returns = self._study(), []
        left = [trial for trial in study.get_trials(deepcopy=False) if not trial.state.is_finished()]
        for trial in left:  # one by one: their numbers need not be consecutive
            returns += self._launch(study, [(trial.number, trial.params)])
        while (done := len(study.get_trials(deepcopy=False))) < self.n_trials:
            trials = [study.ask(self.space) for _ in range(min(self.n_jobs, self.n_trials - done))]
            returns += self._launch(study, [(trial.number, trial.params) for trial in trials])
        return returns

    def _study(self) -> Any:
        import optuna
        from optuna.study import StudyDirection

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = storage_of(self.folder / STUDY)
        past = [s for s in optuna.get_all_study_summaries(storage) if s.study_name == NAME]
        # a resumed study continues to sample instead of repeating its first values
        seed = None if self.seed is None else (self.seed + sum(s.n_trials for s in past)) % 2**32
        samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        return optuna.create_study(
            storage=storage,
            study_name=NAME,
            load_if_exists=True,
            direction=StudyDirection[self.direction.upper()],
            sampler=samplers[self.sampler](seed=seed),
        )

    def _launch(self, study: Any, trials: list[tuple[int, dict[str, Any]]]) -> list[Any]:
        from optuna.trial import TrialState

        jobs = [self._overrides(number, values) for number, values in trials]
        returns = list(self.launcher.launch(jobs, initial_job_idx=trials[0][0]))
        for number, _ in trials:
            folder = self.folder / str(number)
            value = finished_value(folder)
            if run_status(folder) == "pruned":
                study.tell(number, state=TrialState.PRUNED)
            elif math.isfinite(value) and run_status(folder) == "finished":
                study.tell(number, value)
            else:
                study.tell(number, state=TrialState.FAIL)
        return returns

    def _overrides(self, number: int, values: dict[str, Any]) -> list[str]:
        pruning = [f"callbacks.pruning.study='{self.folder / STUDY}'", f"callbacks.pruning.trial={number}"]
        return [*self.fixed, *(f"{key}={value}" for key, value in values.items()), *pruning]


def split(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Split overrides into those with one value and the search space of the others."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    fixed, space = [], {}
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        if override.is_sweep_override():
            space[override.get_key_element()] = _distribution(override)
        else:
            fixed.append(override.input_line or "")
    return fixed, space


def _distribution(override: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if not override.is_interval_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    low, high, log = value.start, value.end, "log" in value.tags
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)
