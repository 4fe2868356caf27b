"""``resume=RUN``: the config of the resumed run, and the check that its data are the same."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config.redact import hide_environment
from llmft.config.stored import stored_config
from llmft.runs import hardware
from llmft.runs.open import GROUPS, completed, relocate
from llmft.runs.record import NAME, has_record, read_record, run_status, write_record
from llmft.utils import lock
from llmft.utils.errors import UserError, checked
from llmft.utils.files import sync_tree
from llmft.utils.paths import user_path
from llmft.utils.rank import is_first
from llmft.utils.text import first_line

# Keys that may differ from the resumed run, besides those of the hardware: its length, and what changes no result
# beyond rounding.
LENGTHS = ("trainer.max_epochs", "trainer.max_steps", "callbacks.early_stopping.patience")
CHANGEABLE = (
    *LENGTHS,
    *(
        "model.compile",
        "data.num_workers",
        "data.processes",
        "data.cache",
        "questions",
        "show_traceback",
        "callbacks.progress",
        "callbacks.checkpoints.every_n_steps",
    ),
)
# Of trainer=: those that say how many processes take part in a step.
PROCESSES = ("devices", "num_nodes", "strategy")


def resumed(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The config of the run ``cfg.resume``, with the changes of the command line that are allowed.

    Args:
        cfg: As composed from the command line; the run continues in its ``output_dir``.
        overrides: The command line's overrides.

    Raises:
        UserError: There is no such run, or an override would change its results.
    """
    folder = user_path(str(cfg.resume))
    record = read_record(folder, default={})  # before the config, which the first process writes first
    saved = _saved(folder)
    hide_environment(saved)
    faults = [fault for override in overrides if (fault := _apply(override, cfg, saved))]
    checked(faults)
    hardware.choose_again(saved, record)
    target = Path(cfg.output_dir)
    if target.resolve() != folder.resolve() and is_first():
        _copy(folder, target)
    relocate(saved, target)  # wherever it was when it was started
    saved.resume = str(cfg.resume)
    return saved


def is_done(cfg: DictConfig) -> bool:
    """Whether the run has finished and its length is not increased."""
    folder = Path(cfg.output_dir)
    saved = _saved(folder)
    return run_status(folder) == "finished" and all(_plain(cfg, key) == _plain(saved, key) for key in LENGTHS)


def check_data(given: str, sha256: str | None, trained: Mapping[str, Any], digests: Mapping[str, str | None]) -> None:
    """Refuse to resume with other data.

    Args:
        given: All files.
        sha256: Of all files.
        trained: The run's record.
        digests: The SHA-256 of each key's files.

    Raises:
        UserError: A data file's digest is not the run's.
    """
    record = trained.get("data", {})
    name, now, before = f"data.path={given}", sha256, record.get("sha256")
    if before and now and before != now:
        then = record.get("files", {}) if len(digests) > 1 else {}
        for key in (key for key, digest in digests.items() if then.get(key) not in (None, digest)):
            name, now, before = key, str(digests[key]), then[key]
        raise UserError(
            f"{name}: has changed since the run began (SHA-256 {now[:12]}..., then {before[:12]}...); "
            "put the old file back, or start a new run"
        )


def _saved(folder: Path) -> DictConfig:
    try:
        saved = stored_config(folder / "config.yaml")
    except ValueError as error:
        raise UserError(f"resume={folder}: not a run directory that can be resumed ({error})") from None
    if "seed" not in saved or not all(isinstance(saved.get(name), DictConfig) for name in (*GROUPS, "trainer")):
        raise UserError(f"resume={folder}: config.yaml is not the config of a training")
    return completed(saved)


def _apply(override: str, cfg: DictConfig, saved: DictConfig) -> str | None:
    key, _, value = override.lstrip("+~").partition("=")
    key = key.partition("@")[0]
    if key in ("resume", "output_dir", "allow_writes") or key.startswith("hydra"):
        return None
    try:
        now, then = _plain(cfg, key), _plain(saved, key)
    except OmegaConfBaseException as error:
        return f"{key}: {first_line(error)}"
    if now == then or key in ("debug", "experiment"):
        return None
    if key == "data.path" and _has_digest(cfg):  # check_data compares the files
        OmegaConf.update(saved, key, now)
        return None
    if key == "trainer.precision" and now == "16-mixed":
        return f"{override}: the run has no state of its gradient scaler (trainer.precision={then}); use auto or {then}"
    if any(key == name or key.startswith(f"{name}.") for name in (*CHANGEABLE, *hardware.KEYS)):
        OmegaConf.update(saved, key, now)
        return None
    if key == "trainer" and all(now[name] == then[name] for name in PROCESSES):  # trainer=cpu
        saved.trainer.accelerator = cfg.trainer.accelerator
        return None
    if isinstance(then, dict) and value == then.get("name"):
        return None  # the same option again; its other keys are those of the run
    shown = then.get("name", "its own") if isinstance(then, dict) else then
    return (
        f"{override}: the run has {key}={shown}; a resumed run keeps its config (only {', '.join(CHANGEABLE)}, and keys of the "
        "hardware may differ: trainer.accelerator, trainer.precision, model.attention, ...)"
    )


def _has_digest(cfg: DictConfig) -> bool:
    """Whether the run's record has the SHA-256 of its data, so that the same file may be elsewhere."""
    record = read_record(user_path(str(cfg.resume)), default={})
    return bool((record.get("data") or {}).get("sha256"))


def _plain(cfg: DictConfig, key: str) -> Any:
    value = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _copy(folder: Path, target: Path) -> None:
    if has_record(target):
        raise UserError(f"output_dir={target}: holds a run already; omit it to resume in {folder}")
    # run.json last, once all else is on the disk: an incomplete copy is not a run
    left_out = shutil.ignore_patterns(NAME, "*.tmp", lock.NAME)
    shutil.copytree(folder, target, dirs_exist_ok=True, ignore=left_out)
    sync_tree(target)
    write_record(target, read_record(folder))
