"""``train``: fine-tune a model, and leave a run directory behind."""

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from llmft.config.auto_values import Choice, resolve_auto
from llmft.config.schema import TrainConfig
from llmft.config.schema.evaluation import Report
from llmft.config.swept import swept_keys
from llmft.config.typed_overrides import task_overrides
from llmft.config.validate import check, check_section
from llmft.data.sources import digest as file_digest
from llmft.data.sources import found_again
from llmft.estimate import oom_report
from llmft.export.license import base_model_license
from llmft.models.architecture_check import architecture_faults
from llmft.models.backbone import locate
from llmft.models.backbone.auto import with_lora_targets
from llmft.report.html import write_if_outdated
from llmft.runs import failure_message
from llmft.runs.checkpoint_check import DamagedCheckpoint
from llmft.runs.directory import RunDirectory, tidy
from llmft.runs.hardware import record_choices
from llmft.runs.record import read_record
from llmft.runs.resume import check_data, is_done, resumed
from llmft.training.build import build
from llmft.training.fit import fit
from llmft.training.key_effects import key_effects
from llmft.training.publish import publish, write_report
from llmft.training.tensorboard import name_job
from llmft.utils import oom
from llmft.utils.determinism import kept_flags, prepare
from llmft.utils.device import check_accelerator
from llmft.utils.distributed import follows_parent
from llmft.utils.errors import Halted, Pruned, UserError
from llmft.utils.logging import FILE_ONLY, log_to, quiet
from llmft.utils.memory import reset_peak_memory
from llmft.utils.paths import user_path
from llmft.utils.rank import started_outside
from llmft.utils.temporary import remove_stale
from llmft.utils.text import first_line

log = logging.getLogger(__name__)

DATA_PATHS = ("path", "val_path", "test_path")
# Keys whose value may be a folder of models or adapters.
PATHS = (("model", "path"), ("peft", "adapter"), ("peft", "distill_from"))
# Values of evaluate.retention that are no file.
NO_FILE = ("off", "shipped", "False")


def main(cfg: DictConfig) -> float | None:
    """Fine-tune; leaves a run directory behind and returns the objective."""
    quiet()
    reset_peak_memory()
    job = HydraConfig.get()
    cfg.output_dir = job.runtime.output_dir
    overrides = task_overrides()
    if cfg.resume:
        cfg = resumed(cfg, overrides)
        if is_done(cfg):
            return _tidy_finished(cfg)
        _find_data(cfg)
    is_sweep = job.mode != RunMode.RUN or follows_parent()  # a launcher may run its jobs in processes of their own
    config, run, choices = _checked(cfg, overrides, is_sweep=is_sweep)
    try:
        log_to(run.path / "log.txt", once=is_sweep)
        _log_choices(choices, moved=record_choices(run, config, choices))
        _log_model(config)
        return train_and_record(config, run)
    finally:
        run.release()


def train_and_record(cfg: TrainConfig, run: RunDirectory) -> float | None:
    """Train; however that ends, it is recorded in ``run.json`` and reported."""
    try:
        return train(cfg, run)
    except Halted as error:
        run.fail("halted", reason=str(error))
        write_report(cfg, run)
        raise
    except Pruned as error:
        run.fail("pruned", reason=str(error), objective=error.value)
        raise
    except KeyboardInterrupt as error:
        run.fail("interrupted")
        raise KeyboardInterrupt(f"interrupted; {failure_message.go_on(run)}") from error
    except BaseException as error:
        explained = failure_message.explain_failure(error, run, cfg) or error
        reason = str(explained) if isinstance(explained, UserError) else f"{type(explained).__name__}: {explained}"
        run.fail("failed", reason=reason)
        if run.checkpoint and "resume=" not in reason and not isinstance(error, DamagedCheckpoint):
            how = f"{failure_message.kept(run)}; to resume: {failure_message.resume_command(run)}"
            log.info(how) if isinstance(explained, UserError) else error.add_note(how)  # the last line of a traceback
        if not oom.is_out_of_memory(error):
            raise explained from (error if explained is not error else error.__cause__)
        reason = first_line(error)
    # here the frames of the training are gone, and with them its tensors
    raise oom_report.out_of_memory_error(
        cfg, reason, where=run.step, kept=f"{failure_message.kept(run)}; {failure_message.resume_option(run)} continues"
    )


def train(cfg: TrainConfig, run: RunDirectory) -> float | None:
    """Build, fit, publish."""
    if cfg.prove.keys:
        effects = key_effects("train", task_overrides(), cfg.prove.steps)
        run.update(prove_keys=effects.as_dict())
        log.info("prove: %s", effects.sentence)
    with kept_flags():
        parts = build(cfg, run)
        outcome = fit(parts)
        return publish(run, outcome)


def _checked(
    cfg: DictConfig, overrides: Sequence[str], *, is_sweep: bool
) -> tuple[TrainConfig, RunDirectory, Sequence[Choice]]:
    """The typed config, all checks passed and ``auto`` values resolved; the run directory; and the resolved values.

    A config that is refused leaves no run directory behind; in a sweep it is a failed job of its table.
    """
    path = Path(cfg.output_dir)
    prepare(cfg)
    if is_sweep and not cfg.resume:
        name_job(cfg, overrides, swept_keys())
    try:
        _check_shared(cfg, overrides, is_sweep=is_sweep)
        _resolve_paths(cfg)
        config = check(cfg, TrainConfig, architecture=architecture_faults)
        check_accelerator(config.trainer)
    except UserError as error:
        if is_sweep:
            run = RunDirectory.start(path, cfg, overrides)
            run.fail("failed", reason=str(error))
            run.release()
        raise
    config, choices = resolve_auto(config)
    config = with_lora_targets(config)
    resolved = {choice.key: choice.value for choice in choices} | {"model.lora_targets": config.model.lora_targets}
    for key, value in resolved.items():
        OmegaConf.update(cfg, key, value)
    run = RunDirectory.resume(path, cfg) if cfg.resume else RunDirectory.start(path, cfg, overrides)
    return config, run, choices


def _check_shared(cfg: DictConfig, overrides: Sequence[str], *, is_sweep: bool) -> None:
    """Processes that torchrun or srun starts would each name an ``output_dir`` by their own clock."""
    named = "output_dir" in [override.partition("=")[0] for override in overrides]
    if cfg.trainer.devices * cfg.trainer.num_nodes > 1 and started_outside() and not (is_sweep or named):
        raise UserError("output_dir: processes that torchrun or srun starts must share one; set output_dir=DIR")


def _find_data(cfg: DictConfig) -> None:
    """Let the relative paths of a resumed run's data mean the same files as where it began.

    Raises:
        UserError: A file is not there, or the only one has changed; before ``config.yaml`` of the run names another.
    """
    record = read_record(Path(cfg.output_dir), default={})
    began, digest = record.get("cwd"), (record.get("data") or {}).get("sha256")
    sets = cfg.data.get("sets")
    for data in (cfg.data, *(sets.values() if isinstance(sets, DictConfig) else ())):
        if not isinstance(data, DictConfig):
            continue
        given = [(data, key) for key in DATA_PATHS] + [(data.extra_val, name) for name in data.get("extra_val") or ()]
        given = [(section, key) for section, key in given if section.get(key) is not None]
        for section, key in given:
            paths = section[key]
            # the record's digest is that of a single file
            single = digest if data is cfg.data and len(given) == 1 and isinstance(paths, str) else None
            found = [paths] if isinstance(paths, str) else paths
            if isinstance(began, str):
                found = [found_again(path, Path(began), single) for path in found]
                section[key] = found[0] if isinstance(paths, str) else found
            if single and (file := user_path(found[0])).is_file():
                check_data(found[0], file_digest(file), record, {})


def _resolve_paths(cfg: DictConfig) -> None:
    """Absolute paths, so that the run can be used from any folder."""
    for group, key in () if cfg.resume else PATHS:
        if (given := cfg[group].get(key)) and user_path(str(given)).is_dir():
            cfg[group][key] = str(user_path(str(given)).resolve())
    rows = str(cfg.evaluate.retention)
    if not cfg.resume and rows not in NO_FILE and user_path(rows).exists():
        cfg.evaluate.retention = str(user_path(rows).resolve())
    own = [isinstance(cfg.model.get(key), str) for key in ("path", "gguf_file", "sha256")]
    if all(own) and not locate.gguf_file_of(cfg.model):
        cfg.model.gguf_file = cfg.model.sha256 = None  # of the wheel, but model.path is another


def _log_choices(choices: Sequence[Choice], *, moved: bool) -> None:
    for choice in choices:
        log.info("performance: %s (%s)", choice.setting, choice.why, extra=FILE_ONLY)
    if choices and not moved:  # a resumed run has resolved values; on other hardware, a line has said what changed
        shown = [choice for choice in choices if not choice.brief]
        for choice in (choice for choice in shown if choice.key == "trainer.precision"):
            log.info("precision: %s (%s)", choice.value, choice.why)
        line = ", ".join(choice.setting for choice in shown if choice.key != "trainer.precision")
        log.info("performance: %s (log.txt says why)", line)


def _log_model(cfg: TrainConfig) -> None:
    """What ``model=auto`` found, and what it cannot know."""
    if cfg.model.name != "auto":
        return
    license_id = cfg.model.license or base_model_license(cfg.model)
    log.info(
        "model=auto: family %s (config.json); LoRA targets %s (linear layers of its attention); license %s",
        cfg.model.family,
        ", ".join(cfg.model.lora_targets),
        license_id or "not known: set model.license, which goes into the model card",
    )


def _tidy_finished(cfg: DictConfig) -> float | None:
    folder = Path(cfg.output_dir)
    log_to(None)
    log.info("resume=%s: has finished, nothing to do; trainer.max_epochs=N trains for longer", cfg.resume)
    tidy(folder)
    remove_stale()
    write_if_outdated(folder, check_section(cfg.report, Report, "report"))
    return read_record(folder)["objective"]
