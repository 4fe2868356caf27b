"""InstructionModule: Lightning around a ``Forward``; gradients are normalised by the tokens of the accumulation window."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from llmft.models.float16 import Float16
from llmft.models.forward import Forward, LossTerm
from llmft.models.fsdp import full_tensor, shard
from llmft.models.gradients import gradients_of, scale
from llmft.models.loss import TokenLoss, mean_of
from llmft.models.peft.trainable import check_names, trainable_names
from llmft.utils.device import floats
from llmft.utils.errors import UserError


class AnswerGenerator(Protocol):
    """The part of ``generation.generator.Generator`` that ``predict_step`` calls."""

    def continued(self, prompts: Sequence[Sequence[int]]) -> list[Any]:
        """An answer for each prompt's ids."""
        ...


class InstructionModule(pl.LightningModule):
    """A model under training.

    The loss of an optimizer step is the sum of its token losses over the number of its supervised tokens (if the data set
    has weights: of weight times loss over the sum of the weights), over all micro-batches of the accumulation window (and all
    ranks). Lightning would weight micro-batches equally, and divide by ``accumulate_grad_batches`` in a short last window
    too; ``optimizer_step`` undoes both.

    Args:
        forward_pass: The model with its loss. It is no submodule: the state dict has the names ``model.*``.
        optim: Makes the optimizer from the trainable parameters.
        schedule: Makes the learning rate schedule from the optimizer.

    Attributes:
        model: The transformers (or peft) model.
        train_sums: Loss of the open accumulation window, of this rank.
        val_losses: Loss of the running validation, of this rank: ``val``, then ``val/NAME`` of each further set.
        float16: The state of 16-mixed precision.
        window_open: Whether there are gradients that no optimizer step has used yet.
        window_loss: Of the last optimizer step: nats per supervised token, with a teacher's part.
        window_tokens: Of the last optimizer step: supervised tokens of all ranks, each counted by its weight.
        window_divergence: Of the last optimizer step: divergence from the teacher, per token.
        window_places: Of the last optimizer step: the source of each example of this rank (``rows.jsonl:3``).
        places: The same of the open window.
        grad_norm: Of the last optimizer step: L2 norm over all trainable parameters, before clipping.
        learning_rate: Of the last optimizer step, of the first parameter group.
        test_sums: Loss of the running test, of this rank.
        generator: Generates the answers of ``Trainer.predict``; None before ``llmft.build`` sets it.
        attached: Callbacks that every trainer of this module gets.
    """

    def __init__(self, forward_pass: Forward, optim: Callable[..., Optimizer], schedule: Callable[..., Any]) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold trainable parameters only; on_load_checkpoint checks their names
        self.forward_pass, self.model = forward_pass, forward_pass.model
        self.optim, self.schedule = optim, schedule
        self.train_sums, self.test_sums = TokenLoss(), TokenLoss()
        self.val_losses: dict[str, TokenLoss] = {}
        self.generator: AnswerGenerator | None = None
        self.attached: list[pl.Callback] = []
        # of all that will be trained: with gradual unfreezing some are frozen at times
        self._trainable_names = trainable_names(self.model)
        self.places: list[str] = []
        self.float16 = Float16()
        self.window_open = False
        self.window_loss, self.grad_norm, self.learning_rate = float("nan"), float("nan"), 0.0
        self.window_tokens: float = 0
        self.window_divergence = float("nan")
        self.window_places: list[str] = []

    @property
    def teacher(self) -> LossTerm | None:
        """The distillation loss; None without a teacher."""
        return self.forward_pass.teacher

    @property
    def scaler(self) -> Any:
        """The gradient scaler of 16-mixed precision; None without it."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def set_model(self, model: Any) -> None:
        """Replace the model, here and in the forward pass."""
        self.model = self.forward_pass.model = model

    def configure_callbacks(self) -> Sequence[pl.Callback]:
        """Callbacks that Lightning adds to every trainer of this module."""
        return self.attached

    def on_fit_start(self) -> None:
        """Turn dropout on: from_pretrained returns a model in eval mode, and Lightning keeps the mode."""
        self.train()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The sum of the token losses; ``optimizer_step`` normalises it."""
        total, tokens = self.forward_pass.loss_sum(batch)
        self.train_sums.add(total, tokens)
        self.window_open = True
        self.places += batch["places"]
        return self.float16.scaled(total, tokens, self.trainer.strategy) if self.scaler else total

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Step with normalised gradients, and log loss, gradient norm and learning rate of the window."""
        closure = partial(self._finish_window, optimizer_closure, optimizer)
        super().optimizer_step(epoch, batch_idx, optimizer, closure)
        for name, value in (("loss", self.window_loss), ("grad_norm", self.grad_norm), ("lr", self.learning_rate)):
            self.log_exact(f"train/{name}", value, prog_bar=name == "loss")
        if self.teacher:
            self.log_exact("train/divergence", self.window_divergence)
        if self.scaler:
            self.log_exact("train/skipped_steps", self.float16.skipped)

    def _finish_window(self, optimizer_closure: Callable[[], Any] | None, optimizer: Any) -> Any:
        """Forward and backward of the last micro-batch, then the normalization, before clipping sees the gradients."""
        assert optimizer_closure is not None
        result = optimizer_closure()
        self._close_window(optimizer)
        return result

    def _close_window(self, optimizer: Any) -> None:
        sums = [self.train_sums, *([self.teacher.divergence] if self.teacher else [])]
        totals = [part for each in sums for part in each.totals(self.trainer.strategy)]
        tokens = totals[1]
        if tokens.device.type == "cpu":  # else it stays where it is: the host waits for the device once, below
            tokens = tokens.item()
        gradients = gradients_of(optimizer)
        # Lightning divided by accumulate_grad_batches, DDP by the number of ranks
        factor = self.trainer.accumulate_grad_batches * self.trainer.world_size / _or_one(tokens)
        # a run that began in 16-mixed may be resumed without it
        scale(gradients, factor / (self.float16.factor or 1.0 if self.scaler else 1.0))
        norm = full_tensor(torch.nn.utils.get_total_norm(gradients))
        # float16 gradients are scaled until the step
        loss_scale = self.scaler.scale(torch.ones_like(norm)) if self.scaler else torch.ones(())
        norm, loss_scale, nats, tokens, *divergence = floats(norm, loss_scale, *totals)
        self.grad_norm = norm / loss_scale
        if self.scaler:
            self.float16.count(self.trainer.global_step + 1, norm, loss_scale)
        self.window_loss, self.window_tokens = mean_of(nats, tokens)
        self.train_sums = TokenLoss()
        if self.teacher:
            self.window_divergence = mean_of(*divergence)[0]
            self.teacher.divergence = TokenLoss()
        self.window_places, self.places, self.window_open = self.places, [], False
        self.learning_rate = optimizer.param_groups[0]["lr"]

    def on_validation_epoch_start(self) -> None:
        """Reset the sums of the last validation."""
        self.val_losses = {name: TokenLoss() for name in validation_names(self.trainer.val_dataloaders)}

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the sums of its validation set."""
        list(self.val_losses.values())[dataloader_idx].add(*self.forward_pass.loss_sum(batch))

    def on_validation_epoch_end(self) -> None:
        """``val/loss``, and ``val/NAME/loss`` of further sets: nats per supervised token, over the set."""
        for name, sums in self.val_losses.items():
            self.log_exact(f"{name}/loss", sums.mean(self.trainer.strategy)[0], prog_bar=name == "val")

    def on_test_epoch_start(self) -> None:
        """Reset the sums of the last test."""
        self.test_sums = TokenLoss()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add a batch to the sums of the test set."""
        self.test_sums.add(*self.forward_pass.loss_sum(batch))

    def on_test_epoch_end(self) -> None:
        """``test/loss``: nats per supervised token, over the set."""
        self.log("test/loss", self.test_sums.mean(self.trainer.strategy)[0])  # what Trainer.test returns

    def predict_step(self, batch: Sequence[Sequence[int]], batch_idx: int) -> list[Any]:
        """Generate an answer to each prompt.

        Args:
            batch: Prompts' ids, as ``predict_dataloader`` gives them.
            batch_idx: Unused.

        Returns:
            ``Answer``s with ``text``, ``ended`` and ``tokens``, in order.

        Raises:
            UserError: The module has no generator.
        """
        if self.generator is None:
            raise UserError(
                "predict: the module has no generator; set module.generator, or take the parts of llmft.build"
            )
        return self.generator.continued(batch)

    def log_exact(self, name: str, value: float, *, prog_bar: bool = False) -> None:
        """Log a number in float64; MetricsLog writes it to files and loggers.

        ``self.log`` would round it to float32, and costs a tiny model 4 % of its step: it makes a metric object of each number,
        to reduce what is one number already.
        """
        number = torch.tensor(value, dtype=torch.float64)
        self.trainer.callback_metrics[name] = number
        if prog_bar:
            self.trainer.progress_bar_metrics[name] = value

    def configure_model(self) -> None:
        """Shard the parameters if the strategy is FSDP2."""
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh["data_parallel"], self.trainer.precision)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over the trainable parameters, and a schedule that moves once per optimizer step."""
        optimizer = self.optim([p for p in self.parameters() if p.requires_grad])
        # Lightning would step a plateau after the checkpoints of a step, so that a resumed run would miss that step
        steps: Any = {"scheduler": self.schedule(optimizer), "interval": "step", "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": steps}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """One optimizer step, unless float16 overflowed in it; a plateau is judged by the loss of the window."""
        if self.float16.overflowed:
            return
        scheduler.step(self.window_loss) if isinstance(scheduler, ReduceLROnPlateau) else scheduler.step()

    def trainable_names(self) -> set[str]:
        """Names, in the state dict, of the parameters that are trained, now or later."""
        return self._trainable_names

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the trainable parameters only (the others are those of the backbone), and the state of 16-mixed precision."""
        names = self.trainable_names()
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in names}
        if self.float16.factor is not None:
            checkpoint["float16"] = self.float16.state_dict()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that does not hold exactly the trainable parameters.

        Raises:
            UserError: Names are missing or unknown.
        """
        if "state_dict" in checkpoint:  # with FSDP the weights are already loaded and sharded
            check_names(checkpoint["state_dict"], self.trainable_names())
        if "float16" in checkpoint:
            self.float16.load_state_dict(checkpoint["float16"])


def _or_one(tokens: Any) -> Any:
    """Tokens, a number or a scalar on a device; 1 instead of 0."""
    return torch.where(tokens == 0, 1.0, tokens) if isinstance(tokens, Tensor) else tokens or 1


def validation_names(loaders: Any) -> list[str]:
    """Prefixes of the metrics of each validation set: ``val``, then ``val/NAME``.

    Args:
        loaders: One loader, a mapping by name, or a list, whose names are numbers from 1.
    """
    rest = list(loaders)[1:] if isinstance(loaders, Mapping) else []
    rest = range(1, len(loaders)) if isinstance(loaders, Sequence) else rest
    return ["val", *(f"val/{str(name).removeprefix('val/')}" for name in rest)]
