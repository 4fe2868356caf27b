"""Generate answers to the same few questions at every validation, for ``samples.jsonl`` and TensorBoard's text page."""

import json
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from llmft.data.datamodule import InstructionDataModule
from llmft.generation.generator import Generator
from llmft.models.fsdp import is_sharded
from llmft.runs.directory import RunDirectory
from llmft.utils.files import atomic_write, complete_lines
from llmft.utils.text import json_line


class Samples(pl.Callback):
    """Generate with the run's generation settings, as ``answer`` does, but shorter.

    Args:
        number: Number of questions, taken from the first validation rows; 0 for none.
        max_new_tokens: Maximum length of a sample, in tokens.
        run: The run directory; answers are appended to its ``samples.jsonl``.
        datamodule: Its validation examples are the questions.
        generator: Generates the answers.
    """

    def __init__(
        self,
        number: int,
        max_new_tokens: int,
        *,
        run: RunDirectory,
        datamodule: InstructionDataModule,
        generator: Generator,
    ) -> None:
        self.examples = datamodule.examples_of("val")[:number]
        self.generator = generator.with_settings(max_new_tokens=max_new_tokens)
        self.file = run.path / "samples.jsonl"
        self.last_step = -1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Remove the samples that an interrupted run wrote after the checkpoint that is now resumed."""
        if self.last_step >= 0 and self.file.exists() and not trainer.global_rank:
            kept = [line for line in complete_lines(self.file) if line and json.loads(line)["step"] <= self.last_step]
            atomic_write(self.file, "".join(f"{line}\n" for line in kept))

    def state_dict(self) -> dict[str, int]:
        """The step of the last samples."""
        return {"last_step": self.last_step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the step."""
        self.last_step = state_dict["last_step"]

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Generate the samples, on rank 0 only; not in a dry run."""
        if (
            getattr(trainer, "fast_dev_run", False)
            or trainer.sanity_checking
            or not self.examples
            or trainer.global_rank
        ):
            return
        if is_sharded(trainer.strategy):  # rank 0 does not have the full model; commands/train.py logs that
            return
        self.last_step = trainer.global_step
        answers = self.generator.answers([e.context for e in self.examples], [e.tools for e in self.examples])
        with self.file.open("a", encoding="utf-8") as out:
            for example, answer in zip(self.examples, answers, strict=True):
                question = example.context[-1].message()["content"]
                row = {"step": trainer.global_step, "id": example.id, "place": example.place, "question": question}
                row |= {
                    "reference": example.answer,
                    "answer": answer.text,
                    "ended": answer.ended,
                    "tokens": answer.tokens,
                }
                out.write(json_line(row) + "\n")
                self._show(trainer, f"samples/{example.id}", f"**Q** {question}", answer.text, example.answer)

    def _show(self, trainer: pl.Trainer, tag: str, question: str, answer: str, reference: str) -> None:
        text = f"{question}\n\n**A** {answer}\n\n**reference** {reference}"
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(tag, text, trainer.global_step)
