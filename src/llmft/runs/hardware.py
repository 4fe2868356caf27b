"""A run that is resumed on other hardware: what ``auto`` chose for the one is chosen again for the other."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.auto_values import PLAIN, Choice
from llmft.config.schema import TrainConfig
from llmft.runs.directory import RunDirectory
from llmft.utils import flash, liger
from llmft.utils.device import hardware_of
from llmft.utils.text import as_yaml

log = logging.getLogger(__name__)

# What a config says about the hardware, and what it computes with there.
KEYS = ("trainer.accelerator", *PLAIN, "model.activation_offload", "model.compile", "optim.paged", "optim.fallback")


def choose_again(saved: DictConfig, record: Mapping[str, Any]) -> None:
    """Set the keys that ``auto`` chose back to ``auto``, in place, if the run goes on on other hardware.

    On the same hardware they stay, also where a newer version would choose otherwise. What the user asked for always stays.

    Args:
        saved: The config of the run.
        record: Its ``run.json``.
    """
    began, here = record.get("hardware"), hardware_of(saved.trainer)
    if began not in (None, here) or _is_missing_here(saved):
        for key, value in _chosen(record).items():
            if OmegaConf.select(saved, key) == value:
                OmegaConf.update(saved, key, "auto")


def _is_missing_here(saved: DictConfig) -> bool:
    model = saved.model
    return bool(
        (model.get("attention") == "flash" and flash.unavailable())
        or (model.get("liger") is True and liger.unavailable())
    )


def _chosen(record: Mapping[str, Any]) -> dict[str, Any]:
    found = record.get("performance") or ()
    return {choice["key"]: choice["value"] for choice in found if choice.get("key") in PLAIN}


def record_choices(run: RunDirectory, cfg: TrainConfig, choices: Sequence[Choice]) -> bool:
    """Record the hardware and what ``auto`` chose for it; of a resumed run, one line says what is not as it was.

    Args:
        run: Of a training that starts or is resumed.
        cfg: Its config, ``auto`` resolved.
        choices: Of the keys that were ``auto`` now.

    Returns:
        Whether there is such a line.
    """
    began, here = run.record.get("hardware"), hardware_of(cfg.trainer)
    moved = [] if began in (None, here) else [f"{began} -> {here}"]
    changes = list(_changes(_chosen(run.record), choices))
    now = {choice.key for choice in choices}
    kept = [
        choice
        for choice in run.record.get("performance") or ()
        if choice["key"] not in now and cfg.select(choice["key"]) == choice["value"]
    ]
    new = [{"key": choice.key, "value": choice.value, "why": choice.why} for choice in choices]
    run.update(hardware=here, performance=[*kept, *new])
    if not moved and not changes:
        return False
    what = "hardware has" if moved else "settings have"
    changed = "; ".join([*moved, *([", ".join(changes)] if changes else [])])
    log.warning("%s changed since the run began, so results may differ: %s", what, changed)
    return True


def _changes(before: Mapping[str, Any], choices: Sequence[Choice]) -> Iterator[str]:
    for choice in choices:
        if choice.key in before and before[choice.key] != choice.value:
            yield f"{choice.key} {as_yaml(before[choice.key])} -> {as_yaml(choice.value)}"
