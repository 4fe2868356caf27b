"""Load a model for generation: of a run, a plain one, or the base model of a run."""

import logging
from pathlib import Path
from typing import TypeVar

from llmft.config.schema import RunOrModel, TrainConfig
from llmft.config.schema.generation import Generation
from llmft.config.target_allowlist import REMOTE_CODE
from llmft.config.typed_overrides import task_overrides
from llmft.generation.ctranslate2_decoder import open_converted
from llmft.generation.generator import Generator
from llmft.generation.runtime_generator import RuntimeGenerator
from llmft.models.backbone.open import Backbone, TrainedBackbone
from llmft.models.dtype import answering_precision, dtype_name, to_float32, untrained_precision
from llmft.models.peft.trainable import has_adapter
from llmft.runs.open import open_run
from llmft.runtimes.exported import TORCH_FORMS, ExportedBackbone, ExportedFolder, open_exported
from llmft.runtimes.open import open_runtime
from llmft.utils import device
from llmft.utils.errors import UserError

log = logging.getLogger(__name__)


def load_generator(cfg: RunOrModel) -> tuple[Generator | RuntimeGenerator, str | None]:
    """The model of ``run=RUN`` (a run or an exported folder) with the system prompt of its data set, or a plain ``model=``.

    Raises:
        UserError: Both a run and a model are given, or the run has no model.
    """
    if cfg.run is None:
        if not any(override.startswith("model") for override in task_overrides()):
            log.info("model: %s, not fine-tuned (no run= given; run=latest takes your newest run)", cfg.model.name)
        backbone = Backbone.open(cfg)
        return _named(_generator(backbone, cfg.generation, untrained_precision(cfg.model.dtype)), why=""), None
    check_overrides()
    if exported := open_exported(cfg.run):
        return _named(load_exported(exported, own_generation(cfg.generation, exported.generation))), exported.system
    folder, trained = open_run(cfg.run)
    generation = own_generation(cfg.generation, trained.generation)
    return _named(load_tuned(folder, trained, generation)), trained.data.system


def load_streaming(cfg: RunOrModel) -> tuple[Generator, str | None]:
    """As ``load_generator``, for ``chat`` and ``serve``.

    Raises:
        UserError: As ``load_generator``, or the runtime of an exported folder does not stream.
    """
    exported = open_exported(cfg.run) if cfg.run is not None else None
    if exported and exported.form == "ctranslate2":
        check_overrides()
        settings = own_generation(cfg.generation, exported.generation).node()
        return open_converted(exported.folder, ExportedBackbone(exported).codec, settings), exported.system
    generator, system = load_generator(cfg)
    if isinstance(generator, RuntimeGenerator):
        raise UserError(
            f"run={cfg.run}: chat and serve need an export of form=merged, adapter or ctranslate2, or the run"
        )
    return generator, system


def check_overrides() -> None:
    """Check that the command line does not change the model or the prompt of a run.

    Raises:
        UserError: It does.
    """
    chosen = [o for o in task_overrides() if o.startswith(("model", "prompt")) and REMOTE_CODE not in o]
    if chosen:
        raise UserError(
            f"{chosen[0]}: a run has its own model and prompt; drop the override, or use a plain model without run="
        )


def load_exported(exported: ExportedFolder, generation: Generation) -> Generator | RuntimeGenerator:
    """The model of an exported folder in the runtime that it is for.

    Raises:
        UserError: The runtime is not installed, or does not support the settings.
    """
    if exported.form not in TORCH_FORMS:
        return RuntimeGenerator(open_runtime(exported.folder), generation.node())
    return _generator(ExportedBackbone(exported), generation)


def load_tuned(folder: Path, trained: TrainConfig, generation: Generation) -> Generator:
    """The model of a run.

    Args:
        folder: The run directory.
        trained: Its config.
        generation: Generation settings, the run's own or others.
    """
    return _generator(TrainedBackbone(folder / "model", trained), generation, trained.trainer.precision)


def _generator(backbone: Backbone, generation: Generation, precision: str = "32-true") -> Generator:
    model = backbone.load().to(device.announced_device())
    if generation.dtype == "float32":
        to_float32(model)  # once, and not around each answer
    return Generator(model, backbone.codec, generation.node(), precision=precision)


AnyGenerator = TypeVar("AnyGenerator", Generator, RuntimeGenerator, Generator | RuntimeGenerator)


def _named(generator: AnyGenerator, why: str = ", as in training") -> AnyGenerator:
    """Log the dtype that answers are computed in, and why in that one if it is not float32."""
    if isinstance(generator, Generator):
        precision = answering_precision(generator.model.device, generator.precision, generator.dtype)
        name = dtype_name(generator.model, precision=precision)
        is_float32 = name.startswith("float32") and precision == "32-true"
        more = "" if is_float32 else f"{why}; generation.dtype=float32 asks for float32"
        log.info("answers are computed in %s%s", name, more)
    return generator


def load_base(cfg: RunOrModel, tuned: Generator | RuntimeGenerator) -> Generator:
    """The base model of a run, with the prompt template and generation settings of the tuned model.

    With an adapter these are the same weights with the adapter switched off, so the two models cannot generate at the same
    time; the base model of a full fine-tuning is loaded.

    Raises:
        UserError: There is no run, or its base model cannot be loaded.
    """
    if cfg.run is None:
        raise UserError("compare: a plain model has no base model; pass run=RUN")
    exported = open_exported(cfg.run)
    if isinstance(tuned, RuntimeGenerator) or (exported and not has_adapter(tuned.model)):
        raise UserError(f"compare: run={cfg.run} is an exported folder without its base model; pass the run")
    if exported:
        return Generator(tuned.model, tuned.codec, tuned.given, adapter=False, precision=tuned.precision)
    return base_of_run(open_run(cfg.run)[1], tuned)


def base_of_run(trained: TrainConfig, tuned: Generator) -> Generator:
    """The base model of a run, by the run's config."""
    if has_adapter(tuned.model):
        return Generator(tuned.model, tuned.codec, tuned.given, adapter=False, precision=tuned.precision)
    base = Backbone(trained.model).load().to(device.default_device())
    return Generator(base, tuned.codec, tuned.given, precision=tuned.precision)


def own_generation(generation: Generation, own: Generation) -> Generation:
    """The generation settings of a run or an exported folder, with the overrides of the command line."""
    given = [override for override in task_overrides() if override.startswith("generation")]
    if any(override.startswith("generation=") for override in given):
        return generation
    names = [override.partition("=")[0].partition(".")[2] for override in given]
    return own.replaced({name: generation.select(name) for name in names})
