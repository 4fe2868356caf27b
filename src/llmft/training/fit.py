"""Validate the untrained model, train, and load the best weights."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from llmft.callbacks.checkpoints import position
from llmft.config.swept import swept_keys
from llmft.data.records import Example, Turn
from llmft.generation.generator import Answer
from llmft.models.fsdp import has_no_weights
from llmft.models.peft import trainable
from llmft.runs.checkpoint_io import load
from llmft.training.baseline import baseline
from llmft.training.build import Parts
from llmft.training.loggers import log_lengths
from llmft.training.resume_check import check_checkpoints
from llmft.utils import determinism
from llmft.utils.device import on_device
from llmft.utils.distributed import ending_together
from llmft.utils.rank import is_first
from llmft.utils.signals import as_interrupt

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """A finished training; the module of ``parts`` holds the best weights.

    Attributes:
        parts: What was trained.
        before: Validation metrics of the untrained model; empty without ``baseline``.
        after: Validation metrics of the best weights; empty in a dry run.
        questions: Test examples that the end table shows.
        answers_before: The untrained model's answers to them; empty without ``baseline``.
        answers_after: The trained model's answers to them.
    """

    parts: Parts
    before: dict[str, float]
    after: dict[str, float]
    questions: Sequence[Example]
    answers_before: Sequence[Answer]
    answers_after: Sequence[Answer]


def fit(parts: Parts) -> Outcome:
    """Validate the untrained model, train, and load the best weights.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C, or SIGTERM came.
        Halted: A guard stopped the training.
        UserError: The checkpoint or the data is invalid.
    """
    cfg, run = parts.cfg, parts.run
    _prepare(parts)
    # a job of a sweep prints no answers: a table of all jobs follows
    has_none = cfg.trainer.fast_dev_run or not is_first() or swept_keys()
    questions = [] if has_none else parts.datamodule.examples_of("test")[: cfg.questions]
    contexts = [example.context for example in questions]
    evaluation, retention = parts.evaluation, parts.retention
    if not trainable.has_adapter(parts.module.model):  # full fine-tuning overwrites the base weights
        for compared in (evaluation, retention):
            if compared:
                compared.evaluate_base(parts.trainer.strategy.root_device)
    before = run.record.get("metrics", {}).get("before") if parts.checkpoint else None
    # once the model is sharded, no rank can generate with it
    answers_before = answers(parts, contexts) if cfg.baseline and parts.is_sharded else []
    with ending_together(parts.trainer.strategy, lambda reason: run.fail("failed", reason=reason)):
        if before is None:
            before = baseline(parts, validate) if cfg.baseline else {}
            run.update(metrics={"before": before})
        answers_before = answers_before or (answers(parts, contexts) if cfg.baseline else [])
        train(parts)
        after = load_best(parts)
        parts.generator.model = parts.module.model
    return Outcome(parts, before, after, questions, answers_before, answers(parts, contexts))


def answers(parts: Parts, contexts: Sequence[Sequence[Turn]]) -> list[Answer]:
    """The answers of the end table, on the device that trains: Lightning leaves the module on the CPU."""
    if not contexts:
        return []
    with on_device(parts.generator.model, parts.device):
        return parts.generator.answers(contexts)


def _prepare(parts: Parts) -> None:
    if parts.is_sharded:
        log.info(
            "samples: none, trainer=fsdp shards the weights and leaves no process a complete model to generate with"
        )
    prove_packing(parts)
    if parts.cfg.trainer.deterministic == "auto" and not determinism.resolved(parts.cfg.trainer):
        log.info(
            "deterministic: no, the fastest algorithms of this GPU, with which two runs differ in the last digits; "
            "trainer.deterministic=true trains the same bits again"
        )
    if not parts.checkpoint:
        log_lengths(parts.trainer.loggers, parts.datamodule.audit)
    _ = parts.judge  # a wrong address or key is an error before the training


def prove_packing(parts: Parts) -> None:
    """With packing: check that the logits of one packed sequence equal those of its examples one by one.

    Computed on the device and in the precision of the training, whose kernels are those that are used.

    Raises:
        UserError: The examples of a packed sequence attend to each other.
    """
    if has_no_weights(parts.cfg):  # rank 0 has them, and checks
        return
    data = parts.datamodule
    batches = data.batches("train")
    sequences = (sequence for batch in batches.fixed for sequence in batch if len(sequence) > 1)
    sequence = next(sequences, None) if data.plan.batching == "packed" else None
    if sequence is not None:
        rows = [data.encoded["train"][row] for row in sequence]
        with on_device(parts.module.model, parts.device), parts.trainer.precision_plugin.forward_context():
            difference = parts.module.forward_pass.check_packing(rows, data.pad_id)
        if difference is None:
            log.warning("packing: not checked, because the logits of the model are not finite")
            return
        log.info("packing: logits of %d examples, packed and one by one, differ by at most %.1g", len(rows), difference)


def validate(parts: Parts) -> dict[str, float]:
    """Metrics of the validation set with the current weights; empty without a validation set."""
    if parts.cfg.trainer.fast_dev_run or not parts.datamodule.encoded["val"]:
        return {}
    with as_interrupt():
        parts.trainer.validate(parts.module, datamodule=parts.datamodule, verbose=False)
    metrics = parts.trainer.callback_metrics
    return {name: float(value) for name, value in metrics.items() if name.startswith("val/")}


def train(parts: Parts) -> None:
    """``Trainer.fit``; TrainerCheck seeds it, so the random state does not depend on what was computed before.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C, or SIGTERM came.
        Halted: A guard stopped the training.
    """
    trainer, data = parts.trainer, parts.datamodule
    if parts.checkpoint:
        _resume(parts)
    if not data.encoded["val"]:
        trainer.limit_val_batches = 0  # else Lightning expects a validation, and no step before it is saved
    with as_interrupt():
        checkpoint = str(parts.checkpoint) if parts.checkpoint else None
        try:
            trainer.fit(parts.module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except BaseException:
            parts.run.step = trainer.global_step + 1
            raise


def _resume(parts: Parts) -> None:
    assert parts.checkpoint
    state = load(parts.checkpoint)
    check_checkpoints(parts, state)
    epoch, batches = position(state)
    log.info("resume: continuing after step %d, epoch %d, batch %d", state["global_step"], epoch, batches)
    # also for checkpoints without state of the data module (llmft 0.1)
    parts.datamodule.resume_at(epoch, batches, state.get("stream", ()))
    if parts.is_sharded:
        _restore_callbacks(parts, state)


def _restore_callbacks(parts: Parts, state: dict[str, Any]) -> None:
    """Restore the callbacks, which Lightning does not do with FSDP2; check the names of the weights."""
    parts.module.on_load_checkpoint(state)
    for callback in parts.trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        callback.on_load_checkpoint(parts.trainer, parts.module, state)
        if callback.state_key in state["callbacks"]:
            callback.load_state_dict(deepcopy(state["callbacks"][callback.state_key]))


def load_best(parts: Parts) -> dict[str, float]:
    """Load the best weights into the module and return their metrics; a last step that was not validated is validated first."""
    if parts.cfg.trainer.fast_dev_run:
        return {}
    step, checkpoints, module = parts.trainer.global_step, parts.checkpoints, parts.module
    if not parts.datamodule.encoded["val"] or (
        checkpoints.validated_step != step and checkpoints.is_better(validate(parts), step)
    ):
        checkpoints.keep_last(parts.trainer)
    parts.trainer.strategy.barrier("best.ckpt is written")
    if has_no_weights(parts.cfg):  # rank 0 alone loads the complete model, evaluates and saves it
        return checkpoints.best_metrics
    if parts.is_sharded:
        module.set_model(parts.backbone.load_adapted())
    state = load(checkpoints.best)
    module.on_load_checkpoint(state)
    module.load_state_dict(state["state_dict"], strict=False)
    return checkpoints.best_metrics
