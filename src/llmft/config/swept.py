"""The keys that a sweep varies: named by the process that starts it, and read in its jobs to name them by what differs."""

import json
import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.setting_names import short_names, short_value

VARIABLE = "LLMFT_SWEPT"  # inherited by the processes of a sweep's jobs
JOBS = "LLMFT_SWEPT_JOBS"
LONGEST = 100  # characters of a label, which is the name of a folder


def announce(config: DictConfig) -> None:
    """Keep the keys of a sweep for its jobs.

    Args:
        config: With which Hydra starts the sweep; its overrides still have all values of a key.
    """
    hydra: Any = OmegaConf.to_container(config.hydra, resolve=False)
    params = (hydra.get("sweeper") or {}).get("params") or {}
    given = [f"{key}={value}" for key, value in params.items() if isinstance(value, str)]
    overrides = [*given, *hydra["overrides"]["task"]]
    os.environ[VARIABLE] = json.dumps(_keys(overrides))
    os.environ[JOBS] = str((hydra.get("sweeper") or {}).get("n_trials") or _count(overrides))


def forget() -> None:
    """The sweep has ended; further runs of this process are not its jobs."""
    os.environ.pop(VARIABLE, None)
    os.environ.pop(JOBS, None)


def swept_keys() -> list[str]:
    """The keys that the sweep of this job varies; empty outside of a sweep."""
    return json.loads(os.environ.get(VARIABLE, "[]"))


def job_count() -> int:
    """How many jobs the sweep of this job has; 0 outside of a sweep, and if that is not known."""
    return int(os.environ.get(JOBS, "0"))


def _count(overrides: Sequence[str]) -> int:
    """The product of the numbers of values; 0 for an interval, which has no number."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([str(text) for text in overrides])
    swept = [override for override in parsed if override.is_sweep_override()]
    if any(override.is_interval_sweep() for override in swept):
        return 0
    return math.prod(sum(1 for _ in override.sweep_iterator()) for override in swept)


def _keys(overrides: Sequence[str]) -> list[str]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([str(text) for text in overrides])
    return list(dict.fromkeys(o.get_key_element().lstrip("+~") for o in parsed if o.is_sweep_override()))


def label(overrides: Sequence[str], keys: Sequence[str]) -> str:
    """The name of a job by what differs: ``lr=1e-3, r=8``.

    Args:
        overrides: Of the job, with one value each.
        keys: That differ between the jobs.
    """
    given = {key.lstrip("+~"): value for key, _, value in (text.partition("=") for text in overrides)}
    names = short_names(keys)
    text = ", ".join(f"{names[key]}={_shown(given[key])}" for key in keys if key in given)
    return text[:LONGEST].strip(" .,")


def _shown(value: str) -> str:
    """A value as part of a file name: a path by its name, a number as the leaderboard writes it."""
    text = value.strip("'\"").rstrip("/").rpartition("/")[2]
    with suppress(ValueError):
        text = short_value(float(text)) if "." in text or "e" in text else text
    return re.sub(r"[^\w.+=@,-]+", "_", text)
