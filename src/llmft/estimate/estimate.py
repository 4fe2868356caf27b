"""A config and its encoded rows -> what the training needs, in numbers, as a table, and as advice."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from hydra.utils import instantiate
from rich.table import Table

from llmft.data.datamodule import InstructionDataModule
from llmft.estimate import memory
from llmft.estimate.suggestions import Suggestion, suggest
from llmft.models.backbone.open import Backbone
from llmft.models.schedule import planned_steps

MIB = 2**20
WORDS = {
    "process": "Python, libraries, rows",
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations, fullest batch",
}


@dataclass(frozen=True)
class Estimate:
    """What is known before the training.

    Attributes:
        memory: Of one process.
        total: Parameters.
        trainable: Parameters that are trained.
        rows: Training rows.
        tokens: Of an epoch's rows, prompts and answers, without padding.
        supervised: Of these, those that are trained.
        batches: Of an epoch, for each process; None for a stream, whose first rows are looked at alone.
        steps: Optimizer steps of the training.
        on_gpu: Where it runs.
        available: Bytes of the device (for a CPU: of the machine, or of what this process may use); None if not known.
        cheapest: The cheapest change that would make it fit, if it does not.
    """

    memory: memory.Memory
    total: int
    trainable: int
    rows: int
    tokens: int
    supervised: int
    batches: int | None
    steps: int
    on_gpu: bool
    available: int | None
    cheapest: Suggestion | None

    def as_json(self) -> dict[str, Any]:
        """All numbers, in bytes, tokens and steps."""
        found = asdict(self) | {"peak": self.memory.peak}
        found["cheapest"] = self.cheapest.as_json() if self.cheapest else None
        return found

    def table(self) -> Table:
        """The memory, part by part."""
        table = Table(title=f"memory of one process on the {'GPU' if self.on_gpu else 'CPU'}, at its fullest")
        table.add_column("part")
        table.add_column("MiB", justify="right")
        for name, size in asdict(self.memory).items():
            table.add_row(WORDS[name], f"{size / MIB:,.1f}")
        table.add_section()
        table.add_row("predicted peak", f"{self.memory.peak / MIB:,.1f}", style="bold")
        return table

    def summary_lines(self) -> list[str]:
        """The rest, in sentences."""
        tokens = f"{self.tokens:,} tokens, {self.supervised:,} of them trained"
        said = [
            f"parameters: {self.total:,}, of them {self.trainable:,} trainable ({100 * self.trainable / self.total:.2f} %)",
            f"an epoch: {self.rows:,} rows, {tokens}; {self.batches:,} batches"
            if self.batches
            else f"the first {self.rows:,} rows of the stream: {tokens}",
            f"the training: {self.steps:,} optimizer steps",
        ]
        if self.available and (not self.cheapest or self.memory.peak > self.available):
            fits = "fits into" if self.memory.peak <= self.available else "does not fit into"
            said.append(f"it {fits} {self.available / MIB:,.0f} MiB")
        return [*said, f"cheapest change: {self.cheapest}"] if self.cheapest else said


def load_encoded(cfg: Any) -> tuple[InstructionDataModule, Backbone]:
    """The rows of a training, encoded, and its backbone."""
    backbone = Backbone.open(cfg)
    data = instantiate(cfg.data)()
    data.read()
    data.encode(backbone.codec)
    return data, backbone


def estimate(cfg: Any, data: InstructionDataModule, backbone: Backbone, *, too_much: bool = False) -> Estimate:
    """Estimate a training.

    Args:
        cfg: Of a training.
        data: Encoded rows.
        backbone: Its backbone.
        too_much: Whether it ran out of memory already, so that it must become smaller whatever there seems to be.
    """
    outline, found = _memory(cfg, data, backbone)
    limit = memory.available_bytes(on_gpu=outline.on_gpu)
    trainer, columns, train = cfg.trainer, data.row_columns, data.indices["train"]
    data.share(0, trainer.devices * trainer.num_nodes)
    batches = data.epoch_batches()
    tokens = int(columns.sizes(train).sum())
    answers = columns["answer_tokens"][train].clip(max=cfg.data.max_answer_tokens)
    cheapest = None
    if too_much or (limit is not None and found.peak > limit):
        # how much was missing is not known: a fifth of what the training itself takes is worth a new start
        less = found.peak - 0.2 * (found.peak - found.process) if too_much else found.peak
        tried = ((change, _memory(change.apply(cfg), data, backbone)[1]) for change in suggest(cfg))
        peaks = ((change, replace(m, process=found.process).peak) for change, m in tried)
        cheapest = Suggestion.first_that_fits(peaks, min(limit or less, less))
    return Estimate(
        memory=found,
        **outline.counts,
        rows=len(train),
        tokens=tokens,
        supervised=tokens if cfg.data.train_on == "all" else int(answers.sum()),
        batches=batches,
        steps=planned_steps(batches, trainer.accumulate_grad_batches, trainer.max_epochs, trainer.max_steps),
        on_gpu=outline.on_gpu,
        available=limit,
        cheapest=cheapest,
    )


def _memory(cfg: Any, data: InstructionDataModule, backbone: Backbone) -> tuple[memory.MetaModel, memory.Memory]:
    outline = memory.MetaModel(cfg, Backbone.open(cfg, path=backbone.path))
    return outline, memory.predict_memory(outline, data)
