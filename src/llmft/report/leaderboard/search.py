"""What an Optuna search found: how much each setting mattered, and all trials as parallel coordinates."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmft.config.setting_names import short_names, short_value
from llmft.config.write_paths import STUDY
from llmft.report.figures import SIZE, Draw, Figure
from llmft.runs.study import NAME, storage_of
from llmft.utils.text import first_line, printable

log = logging.getLogger(__name__)

FEWEST = 4  # finished trials


class Search(NamedTuple):
    """A study: parameters and value of its finished trials, and the importance of each parameter, which sum to 1."""

    trials: Sequence[tuple[Mapping[str, Any], float]]
    minimize: bool
    importance: Mapping[str, float]
    log_scaled: frozenset[str]


def figures(folder: Path, objective: str) -> list[Figure]:
    """The figures of the study in a folder; none without a study, without Optuna, or with fewer than four finished trials."""
    found = read_search(folder)
    if found is None:
        return []
    return [*([_importance(found)] if found.importance else []), _parallel(found, objective)]


def read_search(folder: Path) -> Search | None:
    """The study in a folder; None if there is none that can be read, or if too few trials have finished."""
    if not (folder / STUDY).is_file():
        return None
    try:
        return _read(folder)
    except ImportError:
        log.info(
            "%s: no figures of the search, as Optuna is not installed (pip install 'llmft[optuna]')", folder / STUDY
        )
    except Exception as error:  # a file of somebody else; Optuna states no errors
        log.warning("%s: no figures of the search, as it cannot be read (%s)", folder / STUDY, first_line(error))
    return None


def _read(folder: Path) -> Search | None:
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name=NAME, storage=storage_of(folder / STUDY))
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = [(trial.params, math.nan if trial.value is None else trial.value) for trial in done]
    trials = [(params, value) for params, value in values if params and math.isfinite(value)]
    if len(trials) < FEWEST:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental in Optuna 4
        # PED-ANOVA (Watanabe et al., 2023), which needs neither scikit-learn nor a seed
        importance = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    minimize = study.direction == optuna.study.StudyDirection.MINIMIZE
    scaled = frozenset(key for trial in done for key, of in trial.distributions.items() if getattr(of, "log", False))
    return Search(trials, minimize, importance, scaled)


def _importance(found: Search) -> Figure:
    names = short_names(found.importance)
    shown = [(names[key], value) for key, value in found.importance.items()]

    def paint(axes: Any, colors: Mapping[str, str]) -> None:
        axes.barh(range(len(shown)), [value for _, value in shown], height=0.6, color=colors["first"])
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.invert_yaxis()
        axes.set_xlabel("share of the variance among good trials")
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")

    values = "; ".join(f"{name} {value:.0%}" for name, value in shown)
    title = f"Importance of the searched settings (PED-ANOVA, {len(found.trials)} trials)"
    return Figure("importance", title, values, paint, (SIZE[0], 1.0 + 0.34 * max(3, len(shown))))


def _parallel(found: Search, objective: str) -> Figure:
    """One vertical axis for each setting and one for the objective; one line for each trial, the best in color."""
    keys = list(dict.fromkeys(key for params, _ in found.trials for key in params))
    names = short_names(keys)
    values = [[params.get(key) for params, _ in found.trials] for key in keys] + [[value for _, value in found.trials]]
    scales = [
        _Scale(column, log_scaled=key in found.log_scaled) for key, column in zip([*keys, ""], values, strict=True)
    ]
    labels = [*(names[key] for key in keys), objective]
    order = sorted(range(len(found.trials)), key=lambda i: found.trials[i][1], reverse=found.minimize)  # the best last
    best = found.trials[order[-1]]
    alt = f"{len(found.trials)} trials; best {objective} {best[1]:.4g} with " + ", ".join(
        f"{names[key]}={short_value(value)}" for key, value in best[0].items()
    )
    title = f"{len(found.trials)} trials: settings and {objective}; the best is thick"
    return Figure("trials", title, alt, _lines(values, scales, labels, order))


class _Scale:
    """Places the values of one axis between 0 and 1: numbers by size, others in the order of their first occurrence."""

    def __init__(self, values: Sequence[Any], *, log_scaled: bool) -> None:
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        self.numeric = len(numbers) == len(values)
        self.log = log_scaled and self.numeric and min(numbers) > 0
        self.known = [] if self.numeric else sorted({str(v) for v in values})
        self.ends = (self._at(min(numbers)), self._at(max(numbers))) if self.numeric else (0, len(self.known) - 1)
        self.ticks = dict.fromkeys((min(numbers), max(numbers))) if self.numeric else dict.fromkeys(self.known)

    def _at(self, value: Any) -> float:
        if not self.numeric:
            return self.known.index(str(value))
        return math.log(value) if self.log else float(value)

    def place(self, value: Any) -> float:
        low, high = self.ends
        return (self._at(value) - low) / (high - low) if high > low else 0.5


def _lines(
    values: Sequence[Sequence[Any]], scales: Sequence[_Scale], labels: Sequence[str], order: Sequence[int]
) -> Draw:
    def paint(axes: Any, colors: Mapping[str, str]) -> None:
        axes.grid(visible=False)
        for position, trial in enumerate(order):
            places = [scale.place(column[trial]) for scale, column in zip(scales, values, strict=True)]
            is_best, share = position == len(order) - 1, position / len(order)
            style = {"color": colors["second" if is_best else "first"], "linewidth": 2.6 if is_best else 1.2}
            axes.plot(range(len(places)), places, alpha=1 if is_best else 0.15 + 0.7 * share**2, **style)
        for x, scale in enumerate(scales):
            axes.axvline(x, color=colors["muted"], linewidth=0.8)
            for value in scale.ticks:
                place = {"textcoords": "offset points", "xytext": (4, 2), "fontsize": 8.5}
                axes.annotate(printable(short_value(value)), (x, scale.place(value)), color=colors["ink"], **place)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.1, len(labels) - 0.55)
        axes.set_ylim(-0.06, 1.1)
        axes.set_yticks([])
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)

    return paint
