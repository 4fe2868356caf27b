"""Python API: ``train`` a model, ``load_run`` to generate with it, evaluate or export it, ``build`` for your own Trainer."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from llmft.config.cli_args import composed
from llmft.config.schema import ExportConfig, TrainConfig
from llmft.config.schema.generation import Generation
from llmft.config.validate import check, check_section
from llmft.data.auto import with_data_set
from llmft.runs.open import open_run
from llmft.runs.read import read_evaluation
from llmft.runs.record import read_record
from llmft.utils.errors import UserError
from llmft.utils.files import remove_empty
from llmft.utils.logging import quiet, quietly, restored_logging, without_widgets
from llmft.utils.signals import restored

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from llmft.export.result import Exported
    from llmft.generation.generator import Answer, Generator
    from llmft.metrics.verdict.verdict import Verdict
    from llmft.training.build import Parts

without_widgets()


class Run:
    """A run directory with a trained model. The model is loaded at the first question.

    Attributes:
        path: The run directory.
        config: The resolved config.
        record: The content of ``run.json``: status, data, versions, metrics.
    """

    def __init__(self, path: str | PathLike[str], allow_targets: Sequence[str] = ()) -> None:
        """Open a run.

        Args:
            path: The run directory.
            allow_targets: Packages of yours whose classes its config may name.

        Raises:
            UserError: There is no run at ``path``, or no model in it.
        """
        self.path, self.config = open_run(fspath(path), allow=allow_targets)
        self.record: dict[str, Any] = read_record(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        from llmft.report.notebook.summary import summary

        return summary(self.path, self.verdict)

    @property
    def scores(self) -> dict[str, Any] | None:
        """The content of ``evaluation.json``; None if the run was not evaluated."""
        return read_evaluation(self.path)

    @property
    def verdict(self) -> "Verdict":
        """The headline of the report, with its color, details and reservations."""
        from llmft.metrics.verdict.verdict import stored_verdict

        return stored_verdict(self.scores, self.record)

    @property
    def metrics(self) -> "pd.DataFrame":
        """The logged metrics: one row an optimizer step (index ``step``), one column a metric; NaN where not logged.

        Raises:
            UserError: ``metrics.csv`` or ``steps.csv`` cannot be read.
        """
        from llmft.report.notebook import frames

        return frames.metrics(self.path)

    @property
    def predictions(self) -> "pd.DataFrame":
        """The scored examples: one row an example, with reference, both answers and their scores; empty without evaluation."""
        from llmft.report.notebook import frames

        return frames.predictions(self.path)

    def plot(self) -> "Figure":
        """Plot training and validation loss, with the best step, and the learning rate, as in the report.

        Returns:
            A matplotlib figure, e.g. for ``savefig``; a notebook shows it.

        Raises:
            UserError: The run has logged neither, or its files cannot be read.
        """
        from llmft.report.notebook.figure import plot

        return plot(self.path)

    def answer(self, question: str, *, system: str | None = None, base: bool = False, **generation: Any) -> str:
        """Generate the answer to one question.

        Args:
            question: The user turn, without prompt template.
            system: System prompt; None for the run's own.
            base: Whether to generate with the base model instead of the tuned one.
            generation: Keys of the generation group that override the run's, e.g. ``max_new_tokens=50``.

        Raises:
            UserError: The question is blank or too long for the model, or a setting is wrong.
        """
        return self.answers([question], system=system, base=base, **generation)[0].text

    def answers(
        self, questions: Sequence[str], *, system: str | None = None, base: bool = False, **generation: Any
    ) -> "list[Answer]":
        """Generate answers in batches, in order of the questions; each has ``text``, ``ended`` (finished with EOS), ``tokens``.

        Raises:
            UserError: A question is blank or too long for the model, or a setting is wrong.
        """
        from llmft.data.records import Example, Turn

        if isinstance(questions, str):
            raise UserError("questions: must be a list of texts; use answer() for a single question")
        if blank := [number for number, question in enumerate(questions) if not question.strip()]:
            raise UserError(f"questions[{blank[0]}]: must not be blank")
        system = self.config.data.system if system is None else system
        examples = [Example((Turn("user", question),), "").with_system(system) for question in questions]
        check_section({**self.config.generation.node(), **generation}, Generation, "generation")
        with quietly():
            generator = self._base if base else self._tuned
            return generator.with_settings(**generation).answers([example.context for example in examples])

    def export(
        self,
        to: str | PathLike[str] | None = None,
        *,
        form: str | Sequence[str] = "merged",
        name: str | None = None,
        language: str | None = None,
        dtype: str = "auto",
        quantize: str | None = None,
        shard_size: str = "4GB",
        tolerance: float | None = None,
        max_loss_increase: float = 0.05,
        keep: bool = False,
        require_check: bool = False,
        download: bool = False,
        gguf_archive: str | None = None,
        gguf_adapter: bool = False,
        zip: bool = False,
        hub: str | None = None,
        private: bool = True,
    ) -> "Exported":
        """Export the model, and compare each form with the trained model in its runtime.

        The arguments are the keys of ``conf/export.yaml``.

        Returns:
            For each form its passport and path.

        Raises:
            UserError: It cannot be written there, or the exported model differs from the trained one in its runtime.
        """
        from llmft.export.export import export

        keys = {
            "form": form if isinstance(form, str) else list(form),
            "name": name,
            "language": language,
            "dtype": dtype,
            "quantize": quantize,
            "shard_size": shard_size,
            "tolerance": tolerance,
            "max_loss_increase": max_loss_increase,
            "keep": keep,
            "require_check": require_check,
            "download": download,
            "gguf_archive": gguf_archive,
            "gguf_adapter": gguf_adapter,
            "zip": zip,
            "hub": hub,
            "private": private,
        }
        target = None if to is None else fspath(to)
        settings = check_section(
            {**keys, "run": str(self.path), "to": target, "allow_targets": [], "allow_writes": []}, ExportConfig, ""
        )
        with quietly():
            return export(self.path, self.config, target, settings)

    @cached_property
    def _tuned(self) -> "Generator":
        from llmft.generation.load import load_tuned

        return load_tuned(self.path, self.config, self.config.generation)

    @cached_property
    def _base(self) -> "Generator":
        from llmft.generation.load import base_of_run

        return base_of_run(self.config, self._tuned)


def load_run(path: str | PathLike[str], allow_targets: Sequence[str] = ()) -> Run:
    """Open the run directory of a training.

    Args:
        path: The run directory.
        allow_targets: Packages of yours whose classes its config may name.

    Raises:
        UserError: There is no run at ``path``, or no model in it.
    """
    return Run(path, allow_targets)


def train(overrides: Sequence[str] = ()) -> Run:
    """Fine-tune, as ``python -m llmft`` does with the same overrides, e.g. ``train(["model=tiny_t5", "optim.lr=1e-3"])``.

    Returns:
        The run; its model is loaded at the first question.

    Raises:
        UserError: The config or the data is wrong.
        Halted: A guard stopped the training.
    """
    if isinstance(overrides, str):
        raise UserError('overrides: must be a list, e.g. ["model=tiny_t5", "peft=lora"]')
    cfg: DictConfig = composed("train", with_data_set("train", overrides))
    from llmft.commands import train as command

    try:
        with _command_line("llmft", *overrides), restored(), restored_logging():
            command.main(cfg)
    finally:
        remove_empty(Path(cfg.output_dir))  # left by a config that was refused
    return Run(cfg.output_dir)


def build(overrides: Sequence[str] = ()) -> "Parts":
    """The parts of a training, for a ``lightning.Trainer`` of your own: module, data module, callbacks, trainer settings.

    Nothing is written before the callbacks or the trainer are first used.

    Args:
        overrides: As for ``train``.

    Raises:
        UserError: The config or the data is wrong, or a run is to be resumed.
    """
    from llmft.config.auto_values import resolve_auto
    from llmft.models.architecture_check import architecture_faults
    from llmft.training.build import build as build_parts
    from llmft.utils.determinism import prepare

    if isinstance(overrides, str):
        raise UserError('overrides: must be a list, e.g. ["model=tiny_t5", "peft=lora"]')
    cfg: DictConfig = composed("train", with_data_set("train", overrides))
    if cfg.resume:
        raise UserError("resume: only train() and the command line resume a run; pass ckpt_path to Trainer.fit instead")
    quiet()
    cfg.output_dir = str(Path(cfg.output_dir).absolute())
    remove_empty(Path(cfg.output_dir))
    prepare(cfg)
    config, _ = resolve_auto(check(cfg, TrainConfig, architecture=architecture_faults))
    return build_parts(config)


@contextmanager
def _command_line(*arguments: str) -> Iterator[None]:
    """Replace ``sys.argv``, which ``run.json`` records, so that it does not hold the notebook's or test's command line."""
    kept, sys.argv = sys.argv, list(arguments)
    try:
        yield
    finally:
        sys.argv = kept
