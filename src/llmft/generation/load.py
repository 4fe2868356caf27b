"""A model that is ready to be asked, from a run directory or plain, and the base model of a run."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from llmft.config.target_allowlist import CODE
from llmft.data.tokenization import build
from llmft.generation.generator import Generator
from llmft.models.backbone import load, untrusted
from llmft.models.peft import trainable
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
        auto_class = get_class(cfg.model._target_).auto_class
        place = load.locate(cfg.model, auto_class)
        codec, _ = build.codec_of(cfg, load.load_tokenizer(place, cfg.model))
        model = load.load_model(place, cfg.model, auto_class).to(device.default_device())
        return Generator(model, codec, cfg.generation), None
    chosen = [o for o in HydraConfig.get().overrides.task if o.startswith(("model", "prompt")) and CODE not in o]
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
    model, tokenizer = load_trained(folder / "model", trained, get_class(trained.model._target_).auto_class)
    return Generator(model.to(device.default_device()), build.trained_codec(trained, tokenizer), settings)


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
    auto_class = get_class(trained.model._target_).auto_class
    model = load.load_model(load.locate(trained.model, auto_class), trained.model, auto_class)
    return Generator(model.to(device.default_device()), tuned.codec, tuned.given)


def own_generation(cfg: DictConfig, trained: DictConfig) -> Any:
    """A run's own generation settings, but for what the command line sets."""
    given = [override for override in HydraConfig.get().overrides.task if override.startswith("generation")]
    if any(override.startswith("generation=") for override in given):
        return cfg.generation
    names = [override.partition("=")[0].partition(".")[2] for override in given]
    return OmegaConf.merge(trained.generation, {name: cfg.generation[name] for name in names})


def load_trained(folder: Path, cfg: DictConfig, auto_class: Any) -> tuple[Any, Any]:
    """Model and tokenizer of a run's ``model/``, on top of its backbone, as it was in training, where it holds an adapter."""
    tokenizer = load.load_tokenizer(str(folder), cfg.model)
    if not trainable.is_adapter(cfg.peft):
        return load.load_model(str(folder), cfg.model, auto_class), tokenizer
    base = load.load_model(load.locate(cfg.model, auto_class), cfg.model, auto_class, cfg.peft)
    return untrusted.load_adapter(base, folder, len(tokenizer)), tokenizer
