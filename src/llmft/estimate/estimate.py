"""Estimate what a training needs: memory by part, parameters, tokens, steps, and the cheapest change that makes it fit."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table

from llmft.config.schema import TrainConfig
from llmft.data.datamodule import InstructionDataModule, open_data
from llmft.estimate import memory
from llmft.estimate.gpu import CARDS, available_gpu_bytes, smallest_card
from llmft.estimate.suggestions import Suggestion, suggest
from llmft.models.backbone.open import Backbone
from llmft.models.schedule import planned_steps

MIB = 2**20
WORDS = {
    "process": "Python, libraries, rows",
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations, largest batch",
    "allocator": "allocator's fragmentation",
}


@dataclass(frozen=True)
class Estimate:
    """Estimate of a training.

    Attributes:
        memory: Bytes of one process by part.
        total: Number of parameters.
        trainable: Number of trainable parameters.
        rows: Number of training rows.
        tokens: Tokens of an epoch (prompts and answers) without padding.
        supervised: Supervised tokens of an epoch.
        batches: Batches per epoch and process; None for a stream, of which only the first rows are read.
        steps: Optimizer steps of the training.
        on_gpu: Whether it runs on a GPU.
        card: The smallest card of 8, 16, 24, 40 and 80 GB that holds a process, in GB; None if none does, or on a CPU.
        available: Bytes of GPU memory that are free, or of memory that this process may use; None if unknown.
        converted: Bytes that the weights grow by while an evaluation or a sample computes in float32.
        cheapest: The cheapest change that makes it fit, if it does not fit.
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
    card: int | None
    available: int | None
    converted: int
    cheapest: Suggestion | None

    def as_json(self) -> dict[str, Any]:
        """All values as plain data, in bytes, tokens and steps."""
        found = asdict(self) | {"peak": self.memory.peak}
        found["cheapest"] = self.cheapest.as_json() if self.cheapest else None
        return found

    def table(self) -> Table:
        """Table of the memory by part."""
        table = Table(title=f"peak memory of one process on the {'GPU' if self.on_gpu else 'CPU'}")
        table.add_column("part")
        table.add_column("MiB", justify="right")
        words = WORDS | {"process": "CUDA context"} if self.on_gpu else WORDS
        for name, size in asdict(self.memory).items():
            if size or name != "allocator":
                table.add_row(words[name], f"{size / MIB:,.1f}")
        table.add_section()
        table.add_row("predicted peak", f"{self.memory.peak / MIB:,.1f}", style="bold")
        return table

    def summary_lines(self) -> list[str]:
        """Everything but the memory table, one line each."""
        tokens = f"{self.tokens:,} tokens, {self.supervised:,} of them supervised"
        lines = [
            f"parameters: {self.total:,}, of them {self.trainable:,} trainable ({100 * self.trainable / self.total:.2f} %)",
            f"epoch: {self.rows:,} rows, {tokens}; {self.batches:,} batches"
            if self.batches
            else f"first {self.rows:,} rows of the stream: {tokens}",
            f"training: {self.steps:,} optimizer steps",
        ]
        if self.converted:
            more = f"{self.converted / MIB:,.1f} MiB"
            lines.append(f"in float32 the weights take {more} more, during evaluation or samples (dtype=float32)")
        if self.on_gpu:
            sizes = ", ".join(map(str, CARDS))
            held = f"smallest card that holds it: {self.card} GB" if self.card else "no card holds it"
            lines.append(f"{held} (of {sizes} GB)")
        if self.available and (not self.cheapest or self.memory.peak > self.available):
            fits = "fits into" if self.memory.peak <= self.available else "does not fit into"
            lines.append(f"it {fits} {self.available / MIB:,.0f} MiB{' of GPU memory' if self.on_gpu else ''}")
        return [*lines, f"cheapest change: {self.cheapest}"] if self.cheapest else lines


def load_encoded(cfg: TrainConfig) -> tuple[InstructionDataModule, Backbone]:
    """Read and encode the data of a training config; returns the data module and the backbone."""
    backbone = Backbone.open(cfg)
    data = open_data(cfg.data)
    data.read()
    data.encode(backbone.codec)
    return data, backbone


def estimate(
    cfg: TrainConfig,
    data: InstructionDataModule,
    backbone: Backbone,
    *,
    gpu_gib: float | None = None,
    too_much: bool = False,
) -> Estimate:
    """Estimate a training.

    Args:
        cfg: A training config.
        data: Encoded data module.
        backbone: The backbone of the config.
        gpu_gib: GiB of a GPU that need not be here; None for the one of this machine.
        too_much: Whether the training ran out of memory, so that it must become smaller even if the estimate fits.
    """
    outline, found = _memory(cfg, data, backbone)
    limit = available_gpu_bytes(gpu_gib) if outline.on_gpu else memory.available_bytes()
    trainer, columns, train = cfg.trainer, data.row_columns, data.indices["train"]
    data.share(0, trainer.devices * trainer.num_nodes)
    batches = data.epoch_batches()
    tokens = int(columns.sizes(train).sum())
    answers = columns["answer_tokens"][train].clip(max=cfg.data.max_answer_tokens)
    cheapest = None
    if too_much or (limit is not None and found.peak > limit):
        # by how much memory fell short is unknown; saving a fifth of what the training itself takes is worth a restart
        goal = found.peak - 0.2 * (found.peak - found.process) if too_much else found.peak
        tried = ((change, _memory(change.apply(cfg), data, backbone)[1]) for change in suggest(cfg))
        peaks = ((change, replace(m, process=found.process).peak) for change, m in tried)
        cheapest = Suggestion.first_that_fits(peaks, min(limit or goal, goal))
    return Estimate(
        memory=found,
        **outline.counts,
        rows=len(train),
        tokens=tokens,
        supervised=tokens if cfg.data.train_on == "all" else int(answers.sum()),
        batches=batches,
        steps=planned_steps(batches, trainer.accumulate_grad_batches, trainer.max_epochs, trainer.max_steps),
        on_gpu=outline.on_gpu,
        card=smallest_card(found.peak) if outline.on_gpu else None,
        available=limit,
        converted=outline.converted(),
        cheapest=cheapest,
    )


def _memory(
    cfg: TrainConfig, data: InstructionDataModule, backbone: Backbone
) -> tuple[memory.MetaModel, memory.Memory]:
    outline = memory.MetaModel(cfg, Backbone.open(cfg, path=backbone.path))
    return outline, memory.predict_memory(outline, data)
