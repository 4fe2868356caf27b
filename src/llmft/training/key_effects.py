"""``prove.keys``: what each key of the command line changes in the first steps of a training."""

import gc
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from llmft.callbacks.step_recorder import StepRecorder
from llmft.config.auto_values import resolve_auto
from llmft.config.compose import composed_again
from llmft.config.schema import COMMANDS, TrainConfig
from llmft.config.validate import check
from llmft.data.eval_rows import first_rows
from llmft.models.architecture_check import architecture_faults
from llmft.models.backbone.auto import with_lora_targets
from llmft.models.backbone.locate import locate_cached
from llmft.training.build import Parts
from llmft.training.first_steps import train_first_steps
from llmft.training.step_trace import MARGIN, Changes, Trace, changes
from llmft.utils.errors import Halted, UserError
from llmft.utils.paths import user_path

# Keys and sections that no step of a training reads: where it writes, and what is shown, generated or scored beside it.
OUTSIDE = (
    "output_dir", "evaluate", "report", "logger", "judge", "baseline", "questions", "format", "show_traceback", "debug", "prove",
    "allow_targets", "allow_writes", "resume", "callbacks.progress", "callbacks.samples", "callbacks.metrics_log",
    "callbacks.throughput", "callbacks.generated", "callbacks.perplexity",
)  # fmt: skip
PROMPTS = 2  # answered after the steps


@dataclass(frozen=True)
class Effect:
    """What a key does.

    Attributes:
        kind: ``changes``, ``none``, ``default`` (the value is the default), ``outside`` (not part of training) or ``needed`` (the
            training does not run without it).
        changes: The quantities that differ without the key.
        reason: Why it is needed.
    """

    kind: Literal["changes", "none", "default", "outside", "needed"]
    changes: Changes
    reason: str = ""

    def sentence(self, steps: int) -> str:
        """What the key does, in words."""
        match self.kind:
            case "changes":
                return f"changes {', '.join(_in_words(name, *change) for name, change in self.changes.items())}"
            case "none":
                return f"no effect in the first {steps} steps"
            case "default":
                return "is the default"
            case "outside":
                return "not part of training"
            case "needed":
                return f"cannot be left out: {self.reason}"


@dataclass(frozen=True)
class KeyEffects:
    """What each key does; ``noise``: what two equal trainings differ in (a GPU may add in another order)."""

    steps: int
    effects: dict[str, Effect]
    noise: Changes

    @property
    def sentence(self) -> str:
        """How many keys have no effect, and which."""
        dead = [key for key, effect in self.effects.items() if effect.kind == "none"]
        which = f": {', '.join(dead)}" if dead else ""
        return f"{len(dead)} of {len(self.effects)} keys have no effect in the first {self.steps} steps{which}"

    def notes(self) -> list[str]:
        """What two equal trainings differ in; smaller differences are not counted."""
        return [
            f"two equal trainings differ in {name} by up to {change.difference:.1g}; less than {MARGIN} times that is not counted"
            for name, change in self.noise.items()
            if change.difference is not None
        ]

    def as_dict(self) -> dict[str, Any]:
        """As in ``run.json``."""
        keys = {
            key: {
                "effect": effect.kind,
                "changes": {name: change._asdict() for name, change in effect.changes.items()},
                "sentence": effect.sentence(self.steps),
            }
            for key, effect in self.effects.items()
        }
        noise = {name: change._asdict() for name, change in self.noise.items()}
        return {"steps": self.steps, "sentence": self.sentence, "keys": keys, "noise": noise}


def key_effects(command: str, overrides: Sequence[str], steps: int) -> KeyEffects:
    """Take the first steps once more without each key, its default in its place, and compare.

    Args:
        command: The command whose config is composed: ``train`` or ``prove``.
        overrides: The keys as they were typed.
        steps: How many optimizer steps.

    Raises:
        UserError: Two trainings of the same config are of other examples, so that nothing can be compared.
    """
    training = _Training(command, tuple(overrides), steps)
    with _quiet():
        reference, again = training.trace(), training.trace()
        noise = changes(reference, again)
        if {"ids", "batches", "number of steps"} & noise.keys():
            raise UserError(
                "prove.keys: two trainings of this config have different batches, so that no key can be compared"
            )
        effects = {key_of(override): training.effect(override, reference, noise) for override in overrides}
    return KeyEffects(steps, effects, noise)


def key_of(override: str) -> str:
    """The key or group of an override."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


class _Training:
    """A training whose first steps are taken, with all keys of its command line or without one of them."""

    def __init__(self, command: str, overrides: tuple[str, ...], steps: int) -> None:
        self.command, self.overrides, self.steps = command, overrides, steps
        self.given = self._composed(overrides)
        self.config = self._checked(self.given)

    def trace(self) -> Trace:
        """The first steps with all keys."""
        return first_steps(self.config, self.steps)

    def effect(self, override: str, reference: Trace, noise: Changes) -> Effect:
        """What a key changes."""
        if any(f"{key_of(override)}.".startswith(f"{name}.") for name in OUTSIDE):
            return Effect("outside", {})
        try:
            without = self._composed(tuple(other for other in self.overrides if other != override))
            if OmegaConf.to_container(without) == OmegaConf.to_container(self.given):
                return Effect("default", {})
            config = self._checked(without)
            _check_local(config, self.config)
            found = changes(reference, first_steps(config, self.steps), noise)
        except (UserError, Halted) as error:
            return Effect("needed", {}, " ".join(str(error).split()))
        return Effect("changes" if found else "none", found)

    def _composed(self, overrides: Sequence[str]) -> DictConfig:
        cfg = composed_again(self.command, overrides)
        # the referee refuses trainings that can be compared here, such as those with dropout
        cfg.prove.steps, cfg.prove.keys = 0, False
        return cfg

    def _checked(self, given: DictConfig) -> TrainConfig:
        schema: Any = COMMANDS[self.command]
        config: TrainConfig = check(given.copy(), schema, architecture=architecture_faults)  # it resolves values
        return with_lora_targets(resolve_auto(config)[0])


def _check_local(config: TrainConfig, given: TrainConfig) -> None:
    """Check that a default model or data set is on this machine; nobody has asked for a download.

    Raises:
        UserError: It would be downloaded.
    """
    if config.model.path != given.model.path and locate_cached(config.model) is None:
        raise UserError(f"the default model, {config.model.path}, would be downloaded")
    path = config.data.path
    if path != given.data.path and isinstance(path, str) and path != "sample" and not user_path(path).exists():
        raise UserError(f"the default data, {path.partition('#')[0]}, would be downloaded")


def first_steps(config: TrainConfig, steps: int) -> Trace:
    """Take the first steps of a training, and answer two prompts with the model after them."""
    found = Trace()
    recorder = StepRecorder(steps, lambda _: found, lambda _: None, stop=True)
    with TemporaryDirectory(prefix="llmft-prove-") as folder:
        found.answers = _generated(train_first_steps(config, Path(folder), recorder))
    gc.collect()  # before the next model
    return found


def _generated(parts: Parts) -> list[list[int]]:
    """The ids of the answers to the first prompts of the test set, of each sample."""
    generator, rows = parts.generator, first_rows(parts.datamodule, PROMPTS, "test").encoded
    decoder = generator.decoder()
    prompts = [row.input_ids[: row.prompt_length] for row in rows]
    streams = [
        decoder.stream(prompt, seed=generator.seed, sample=sample)
        for sample in range(generator.samples)
        for prompt in prompts
    ]
    decoder.run(streams)
    return [list(stream.ids) for stream in streams]


def _in_words(name: str, step: int | None, difference: float | None) -> str:
    parts = [f"from step {step}" if step else "", f"up to {difference:.1g}" if difference is not None else ""]
    return f"{name} ({', '.join(filter(None, parts))})" if any(parts) else name


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log and the tables of each of these trainings."""
    logger = logging.getLogger("llmft")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
