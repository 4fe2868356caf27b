"""Halt a broken training (NaN, exploding loss, zero gradients) and write a post-mortem for ``replay``."""

import math
from collections import deque
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from llmft.diagnostics import postmortem
from llmft.diagnostics.idle_weights import IdleWeights
from llmft.models.fsdp import full_tensor, is_sharded
from llmft.models.module import InstructionModule
from llmft.runs.directory import RunDirectory
from llmft.utils.device import floats
from llmft.utils.errors import Halted

WAYS_OUT = {
    "model": "the model was broken before the first step: check the files of model.path",
    "float16": "float16 overflows; use trainer.precision=bf16-mixed or 32-true",
    "products": "products with the 4-bit weights overflow in float16; use peft.compute_dtype=float32",
    "update": "lower optim.lr, or increase scheduler.warmup_steps; then look at the rows",
    "zero": "there is nothing left to learn from these rows: look at their labels with `python -m llmft preview`",
    "labels": "all labels of these rows are masked: look at them with `python -m llmft preview`, and check your labeling code",
    "idle": "leave these weights frozen (peft.targets), or find out why the loss does not depend on them",
}
HELD = 32  # validation batches that wait for the sums after them to be read


class NanGuard(pl.Callback):
    """Raise Halted; the checked values are the same on every rank, so all ranks stop together.

    Its cost is one pass over the weights at the start and, per batch, a copy of the random state.

    Args:
        zero_steps: Halt after this many consecutive optimizer steps with a loss, or a gradient, of exactly 0.
        explode_factor: Halt if the loss stays above this factor times the larger of the first loss and the loss of a uniform
            guess (log of the vocabulary size).
        explode_steps: Consecutive optimizer steps above that limit before it halts.
        idle_steps: Halt if a trainable weight is unchanged after this many steps with a learning rate above 0, although the
            updates were large enough to change it.
        history: Optimizer steps in the report.
        monitor: The objective; halt if it is not finite after a validation.
        run: The run directory; the post-mortem goes to its ``halt`` folder.
    """

    def __init__(
        self,
        zero_steps: int,
        explode_factor: float,
        explode_steps: int,
        idle_steps: int,
        history: int,
        monitor: str,
        *,
        run: RunDirectory,
    ) -> None:
        self.zero_steps, self.explode_factor, self.explode_steps = zero_steps, explode_factor, explode_steps
        self.watched, self.folder = ("val/loss", monitor), run.path / "halt"
        self.idle = IdleWeights(idle_steps)
        self.history: deque[dict[str, float]] = deque(maxlen=history)
        self.window, self.validation = postmortem.StepBatches(), postmortem.StepBatches()
        self.validated: list[tuple[Any, list[Tensor]]] = []
        self.zeros = self.dead = self.high = 0
        self.limit: float | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Keep references to the micro-batches of the accumulation window."""
        if not pl_module.places:
            self.window = postmortem.StepBatches()
        self.window.add(batch, pl_module.device)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Check loss and gradient before the optimizer step."""
        assert isinstance(pl_module, InstructionModule)
        loss, norm, rate = pl_module.window_loss, pl_module.grad_norm, pl_module.learning_rate
        step = {"step": trainer.global_step + 1, "epoch": trainer.current_epoch, "loss": loss, "grad_norm": norm}
        self.history.append(step | {"lr": rate, "tokens": pl_module.window_tokens})
        if not pl_module.window_tokens:
            self._halt(trainer, pl_module, "no token of the step has a label", "labels")
        if not math.isfinite(loss):
            self._halt(trainer, pl_module, f"the loss is {loss}", self._cause(trainer, pl_module))
        # with float16, the gradient scaler skips steps that overflow; that is normal now and then
        scaled = trainer.precision == "16-mixed"
        if not math.isfinite(norm) and not scaled:
            self._halt(
                trainer, pl_module, f"the gradient is not finite (its norm is {norm})", self._cause(trainer, pl_module)
            )
        self._check_level(trainer, pl_module, loss, norm)
        if math.isfinite(norm) and (fault := self.idle.fault(pl_module.model, optimizer, rate)):
            self._halt(trainer, pl_module, fault[0], "idle", named=fault[1])

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Never save weights that are not finite."""
        self._check_weights(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Check the weights after the last step, which no further loss depends on."""
        self._check_weights(trainer, pl_module)
        self.idle.report_unchanged()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Reset the validation batches."""
        self.validation = postmortem.StepBatches()
        self.validated = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the batch until it is known whether the sums after it are finite."""
        if not self.validation.batches:
            self.validated.append((batch, [sums.nats for sums in pl_module.val_losses.values()]))
            if len(self.validated) == HELD:
                self._find_bad_validation(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Check the validation loss and the objective, before and during the training."""
        self._find_bad_validation(pl_module)
        for name in self.watched:
            value = float(trainer.callback_metrics.get(name, 0.0))
            if not math.isfinite(value) and not trainer.sanity_checking:
                self._halt(trainer, pl_module, f"{name} is {value}", self._cause(trainer, pl_module), validating=True)

    def _find_bad_validation(self, pl_module: Any) -> None:
        """Keep the first batch after which a summed loss is not finite; the sums of many are read at once."""
        sums = iter(floats(*(part for _, parts in self.validated for part in parts)))
        for batch, parts in self.validated:
            finite = [math.isfinite(next(sums)) for _ in parts]
            if not all(finite) and not self.validation.batches:
                self.validation.add(batch, pl_module.device)
        self.validated = []

    def _check_level(self, trainer: pl.Trainer, pl_module: InstructionModule, loss: float, norm: float) -> None:
        self.zeros = self.zeros + 1 if loss == 0 else 0
        self.dead = self.dead + 1 if norm == 0 else 0
        if self.zeros >= self.zero_steps:
            self._halt(trainer, pl_module, f"the loss was exactly 0 for {self.zeros} steps: it collapsed", "zero")
        if self.dead >= self.zero_steps:
            what = f"the gradient was exactly 0 for {self.dead} steps: the model no longer learns"
            self._halt(trainer, pl_module, what, "update")
        if self.limit is None:
            uniform = math.log(len(pl_module.model.get_output_embeddings().weight))
            self.limit = self.explode_factor * max(loss, uniform)
        self.high = self.high + 1 if loss > self.limit else 0
        if self.high >= self.explode_steps:
            what = f"the loss is {loss:.4g}, and was above {self.limit:.4g} for {self.high} steps: it exploded"
            self._halt(trainer, pl_module, what, "update")

    def _check_weights(self, trainer: pl.Trainer, pl_module: Any) -> None:
        weights = {name: weight for name, weight in pl_module.model.named_parameters() if weight.requires_grad}
        finite = torch.stack([full_tensor(torch.isfinite(weight).all()) for weight in weights.values()]).tolist()
        if broken := [name for name, each in zip(weights, finite, strict=True) if not each]:
            self._halt(
                trainer, pl_module, f"the weight {broken[0]} is not finite", self._cause(trainer, pl_module), after=True
            )

    def _cause(self, trainer: pl.Trainer, pl_module: InstructionModule) -> str:
        quantized = getattr(pl_module.model.config, "quantization_config", None)
        if getattr(quantized, "bnb_4bit_compute_dtype", None) == torch.float16:
            return "products"
        return "float16" if trainer.precision == "16-mixed" else "model" if trainer.global_step == 0 else "update"

    def _halt(
        self,
        trainer: pl.Trainer,
        pl_module: InstructionModule,
        what: str,
        way_out: str,
        *,
        named: list[str] | None = None,
        validating: bool = False,
        after: bool = False,
    ) -> None:
        """Write the post-mortem and raise Halted."""
        if is_sharded(trainer.strategy):  # rank 0 does not have the full model to rerun the rows
            raise Halted(
                f"halted at step {trainer.global_step + (not validating and not after)}: {what}\n  {WAYS_OUT[way_out]}"
            )
        window = self.validation if validating else self.window
        window = postmortem.gather_windows(window, trainer)
        if trainer.global_rank == 0:
            report = {
                "what": what,
                "way_out": WAYS_OUT[way_out],
                "during": "validation" if validating else "the update" if after else "the step",
                "step": trainer.global_step + (not validating and not after),
                # not trainer.current_epoch, which Lightning increments at the end of an epoch
                "epoch": self.history[-1]["epoch"] if self.history else 0,
                "rows": window.rows,
                "loss": pl_module.window_loss,
                "grad_norm": pl_module.grad_norm,
                "learning_rate": pl_module.learning_rate if self.history else None,
                "weights_named": named or [],
                "precision": str(trainer.precision),
                "rows_agree": bool(pl_module.forward_pass.kernels.packing_is_equivalent),
                "prefixes_agree": bool(pl_module.forward_pass.kernels.sharing_is_equivalent),
                **postmortem.examine(pl_module, window, trainer),
                "history": list(self.history),
            }
            folder: Path | None = self.folder
            try:
                postmortem.write(self.folder, report, window, pl_module)
            except OSError as error:
                folder, report["not_written"] = None, f"{self.folder}: {error}"
            what = postmortem.format_message(report, folder)
        trainer.strategy.barrier()
        raise Halted(what)
