"""A model that is ready to be asked, from a run directory or plain, and the base model of a run."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from llmft.config.target_allowlist import REMOTE_CODE
from llmft.generation.generator import Generator
from llmft.models.backbone.open import Backbone, TrainedBackbone
from llmft.models.peft.trainable import has_adapter
from llmft.runs.open import open_run
from llmft.utils import device
from llmft.utils.errors import UserError


def load_generator(cfg: DictConfig) -> tuple[Generator, str | None]:
    """The model to ask (``run=RUN``, or a plain ``model=``), and the system line that its data set used.

    Raises:
        UserError: A run and a model of its own at once, or a run that holds no model.
    """
    if cfg.run is None:
        backbone = Backbone.open(cfg)
        return Generator(backbone.load().to(device.default_device()), backbone.codec, cfg.generation), None
    chosen = [o for o in HydraConfig.get().overrides.task if o.startswith(("model", "prompt")) and REMOTE_CODE not in o]
    if chosen:
        raise UserError(
            f"{chosen[0]}: a run has its own model and prompt; leave it away, or ask a plain model without run="
        )
    folder, trained = open_run(cfg.run)
    return load_tuned(folder, trained, own_generation(cfg, trained)), trained.data.system


def load_tuned(folder: Path, trained: DictConfig, settings: Any) -> Generator:
    """The model of a run.

    Args:
        folder: The run directory.
        trained: Its config.
        settings: Generation settings, the run's own or others.
    """
    backbone = TrainedBackbone(folder / "model", trained)
    return Generator(backbone.load().to(device.default_device()), backbone.codec, settings)


def load_base(cfg: DictConfig, tuned: Generator) -> Generator:
    """The base model of a run, under the prompt and settings that the tuned one is asked with.

    Beside an adapter it is the same weights in memory with the adapter switched off, so the two are asked one after the
    other; a fully trained run's base is loaded.

    Raises:
        UserError: There is no run, or its base model is not at hand.
    """
    if cfg.run is None:
        raise UserError("compare: a plain model has no other to be compared with; pass run=RUN")
    return base_beside(open_run(cfg.run)[1], tuned)


def base_beside(trained: DictConfig, tuned: Generator) -> Generator:
    """The same, by the run's config."""
    if has_adapter(tuned.model):
        return Generator(tuned.model, tuned.codec, tuned.given, adapter=False)
    return Generator(Backbone(trained.model).load().to(device.default_device()), tuned.codec, tuned.given)


def own_generation(cfg: DictConfig, trained: DictConfig) -> Any:
    """A run's own generation settings, but for what the command line sets."""
    given = [override for override in HydraConfig.get().overrides.task if override.startswith("generation")]
    if any(override.startswith("generation=") for override in given):
        return cfg.generation
    names = [override.partition("=")[0].partition(".")[2] for override in given]
    return OmegaConf.merge(trained.generation, {name: cfg.generation[name] for name in names})
