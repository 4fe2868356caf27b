"""In which settings runs differ; runs that differ in none but their seed are one group."""

from collections.abc import Iterable, Sequence
from typing import Any

from llmft.report.leaderboard.runs import BoardRun

# Settings that do not distinguish runs: seeds, output paths, display, and which trial of a search a run is.
NOT_A_SETTING = ("seed", "data.seed", "data.split_seed", "generation.seed", "output_dir", "show_traceback")
NOT_SETTINGS = ("logger.", "report.", "callbacks.progress.", "callbacks.pruning.", "hydra.")


def differing_settings(runs: Sequence[BoardRun]) -> list[str]:
    """The config keys in which runs differ; for a group with another option, only its name.

    All keys of the command lines; of the others, which often follow from these, only what tells apart runs that are equal
    without it.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    found = [key for key in keys if not _is_incidental(key) and len({_value(run, key) for run in runs}) > 1]
    named = {key.partition(".")[0] for key in found if key.endswith(".name") and key.count(".") == 1}
    typed = frozenset[str]().union(*(run.typed for run in runs))
    chosen: list[str] = []
    for key in sorted(found, key=lambda key: not _is_typed(key, typed)):
        hidden = key.partition(".")[0] in named and not key.endswith(".name") and key not in typed
        if hidden:
            continue
        if _is_typed(key, typed) or _parts(runs, [*chosen, key]) > _parts(runs, chosen):
            chosen.append(key)
    return [key for key in found if key in chosen]


def typed_settings(runs: Sequence[BoardRun]) -> list[str]:
    """Of ``differing_settings`` those of a command line: a run that failed early may lack all others."""
    typed = frozenset[str]().union(*(run.typed for run in runs))
    return [key for key in differing_settings(runs) if _is_typed(key, typed)]


def grouped(runs: Iterable[BoardRun], keys: Sequence[str]) -> list[list[BoardRun]]:
    """Runs that are equal in these settings, in the order of the first of each group."""
    groups: dict[tuple[str, ...], list[BoardRun]] = {}
    for run in runs:
        groups.setdefault(tuple(_value(run, key) for key in keys), []).append(run)
    return list(groups.values())


def _is_incidental(key: str) -> bool:
    return key in NOT_A_SETTING or key.startswith(NOT_SETTINGS)


def _is_typed(key: str, typed: frozenset[str]) -> bool:
    return key in typed or key.removesuffix(".name") in typed


def _parts(runs: Sequence[BoardRun], keys: Sequence[str]) -> int:
    return len({tuple(_value(run, key) for key in keys) for run in runs})


def _value(run: BoardRun, key: str) -> Any:
    return repr(run.settings.get(key))
