"""Log the data and the model of a training before it starts, and record them in ``run.json``."""

import json
import logging
from typing import Any

from llmft.config.schema import TrainConfig
from llmft.config.swept import swept_keys
from llmft.data.datamodule import InstructionDataModule
from llmft.data.preprocessing import near_duplicates
from llmft.data.preprocessing.audit import Audit, show_audit
from llmft.data.preprocessing.length_histogram import histogram
from llmft.models.backbone.open import Backbone
from llmft.models.dtype import dtype_name
from llmft.models.peft.trainable import parameter_counts
from llmft.runs.directory import RunDirectory
from llmft.utils.errors import UserError
from llmft.utils.rank import is_first

log = logging.getLogger(__name__)

SHOWN: set[str] = set()  # audits that this process has printed


def log_data(data: InstructionDataModule, run: RunDirectory | None) -> None:
    """Log and record row counts, split, batches and token lengths; write ``rejected.jsonl``.

    Raises:
        UserError: Labels are invalid.
    """
    sizes = {name: len(rows) for name, rows in data.encoded.items()}
    for line in data.row_counts.lines():
        log.info(line)
    batches, fill = data.epoch_batches(), data.batches("train").fill()
    counts = ", ".join(f"{count} {name}" for name, count in sizes.items())
    length = f"{batches} batches per epoch" if batches else "the first rows of a stream, which is read during training"
    log.info("split: %s; %s (%s), %.0f %% of their tokens are not padding",
             counts, length, data.plan.batching, 100 * fill)  # fmt: skip
    fraction = {"fraction": data.config.train_fraction, "examples": data.train_examples(), "of": data.fraction_of}
    if data.config.train_fraction < 1:
        log.info(
            "train_fraction: %(examples)d of %(of)d training examples, repeated to the length of an epoch of all",
            fraction,
        )
    batching = {"name": data.plan.batching, "batches": batches, "fill": fill}
    audit = data.audit.summary() if data.audit else {}
    known = {
        "split": sizes,
        "batching": batching,
        "lengths": histogram(data.audit.lengths if data.audit else {}),
        "train": fraction,
        "audit": audit,
        "text_notes": data.text_notes,
        "near_duplicates": near_duplicates.summary(data.config.near_duplicates, data.near_duplicates),
        "files": data.digests(),
        "validation": data.reference_size("val"),
        **(
            {"extra_validation": {name: data.reference_size(name) for name in data.extra_val}} if data.extra_val else {}
        ),
    }
    if run:
        run.update(data=data.row_counts.summary() | known)
    for line in data.findings():
        log.info(line)
    if is_first():
        _show_audit_once(data.audit)
    if is_first() and run:
        data.row_counts.write_rejected(run.path / "rejected.jsonl")
        if data.stream:
            data.stream.rejected = run.path / "rejected.jsonl"
    if faults := data.row_counts.faults():
        raise UserError.from_faults("labels", faults)


def log_model(cfg: TrainConfig, run: RunDirectory | None, backbone: Backbone, model: Any) -> None:
    """Log and record the model, its prompt template, the dtype it computes in and its number of trainable parameters."""
    counts = parameter_counts(model, cfg.peft)
    trainable, total = counts["trainable"], counts["total"]
    path, prompt, dtype = backbone.path, backbone.prompt_name, dtype_name(model)
    if cfg.trainer.precision != "32-true":
        dtype += f", {cfg.trainer.precision}"
    log.info("model: %s (%s), %s, prompt %s", cfg.model.name, path, dtype, prompt)
    shares = f"{trainable:,} of {total:,} parameters trainable ({100 * trainable / total:.2f} %)"
    log.info("peft %s: %s", cfg.peft.name, shares)
    if run:
        run.update(model={"name": cfg.model.name, "path": path, "prompt": prompt, "dtype": dtype}, parameters=counts)


def _show_audit_once(audit: Audit | None) -> None:
    """Print the audit, unless an earlier job of the sweep has printed the same; ``run.json`` and the report have all of it."""
    numbers = json.dumps(audit.summary(), sort_keys=True) if audit else ""
    if not (swept_keys() and numbers in SHOWN):
        show_audit(audit, brief=True)
    SHOWN.add(numbers)
