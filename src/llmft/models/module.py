"""InstructionModule: batch -> loss and gradient, normalised by tokens over the accumulation window; both families share it."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from llmft.models.attention.dispatch import attention_for
from llmft.models.attention.equivalence_check import packing_is_equivalent
from llmft.models.attention.unpad import in_one_line, is_full, lengths
from llmft.models.attention.varlen import can_be_alone
from llmft.models.fsdp import full_tensor, shard
from llmft.models.loss import capture_hidden, chunked_cross_entropy_sum, head_on, token_loss_sum
from llmft.utils.errors import UserError

if TYPE_CHECKING:
    from llmft.models.distillation import Teacher


class TokenLoss:
    """Token losses added up: nats and tokens, divided once."""

    def __init__(self) -> None:
        self.nats = torch.zeros((), dtype=torch.float64)
        self.tokens = torch.zeros((), dtype=torch.long)

    def add(self, nats: Tensor, tokens: Tensor) -> None:
        """Add a batch: scalars on any device."""
        self.nats += nats.detach().cpu().double()
        self.tokens += tokens.cpu()

    def mean(self, strategy: Any) -> tuple[float, int]:
        """Nats per token, and tokens, over all ranks (0 tokens: a mean of 0)."""
        both = torch.stack([self.nats, self.tokens.double()])  # float64 counts exactly up to 2**53
        if getattr(strategy, "world_size", 1) > 1:
            both = strategy.reduce(both.to(strategy.root_device), reduce_op="sum")
        nats, tokens = both.tolist()
        return nats / max(tokens, 1), int(tokens)


class InstructionModule(pl.LightningModule):
    """A backbone under training.

    The loss of an optimizer step is the sum of its token losses over the number of its supervised tokens, over all
    micro-batches of the window (and all ranks). Lightning would average micro-batches instead, whatever their size, and
    divide by ``accumulate_grad_batches`` in a short last window too; ``optimizer_step`` undoes both.

    Attributes:
        model: The transformers (or peft) model.
        teacher: Another model to learn from as well; None for none.
        plain: Whether all is computed as transformers would: the head everywhere, padding masked.
        by_length: Whether attention is chosen by the length of a batch's lines.
        row_by_row: Whether the rows of a batch may be laid in one line and attend each by itself, where model and device can.
        rows_agree: Whether they then are what they are alone; None: not asked yet.
        window_open: Whether there are gradients that no optimizer step has used yet.
        window_loss: Of the last optimizer step: nats per supervised token.
        window_tokens: Of the last optimizer step: supervised tokens.
        window_places: Of the last optimizer step: where its rows come from.
        grad_norm: Of the last optimizer step: L2 norm over all trainable weights, before clipping.
        learning_rate: Of the last optimizer step.
    """

    auto_class: ClassVar[Any]

    def __init__(self, model: Any, optim: Callable[..., Optimizer], schedule: Callable[..., Any]) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold trainable weights only; on_load_checkpoint checks their names
        self.model = model
        self.optim, self.schedule = optim, schedule
        self.train_sums, self.val_sums, self.teacher_sums = TokenLoss(), TokenLoss(), TokenLoss()
        self.teacher: Teacher | None = None
        # with gradual unfreezing not all of them are trained at all times
        self.learnt = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        self.places: list[str] = []
        self.plain, self.by_length, self.row_by_row = False, False, False
        self.head_is_last, self.plain_head = False, False
        self.rows_agree: bool | None = None
        self.window_open = False
        self.window_loss, self.window_tokens, self.grad_norm, self.learning_rate = float("nan"), 0, float("nan"), 0.0
        self.window_places: list[str] = []

    @abstractmethod
    def predict(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """What the model predicts where there is something to learn.

        Args:
            batch: Of ``collate.training_batch``.

        Returns:
            Logits [N, V], the ids [N] that they predict, line by line, and where these stand, [B, T], bool.
        """

    @abstractmethod
    def tokens(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Where there is no padding: among the ids, [B, S], and among the labels, [B, S] or [B, T], bool."""

    def configure_kernels(self, cfg: Any) -> "InstructionModule":
        """Itself, as fast as a training's settled config says."""
        self.plain = cfg.get("performance") == "plain"
        self.by_length = cfg.model.attention == "by_length"
        self.row_by_row = cfg.model.padding == "skipped"
        return self

    def head_on(self, chosen: Tensor) -> AbstractContextManager[None]:
        """The model's head on the chosen positions [B, T] alone; with ``performance=plain`` on all of them."""
        return nullcontext() if self.plain else head_on(self.model, chosen)

    def logits_on(self, chosen: Tensor, outputs: Any) -> Tensor:
        """The logits of the chosen positions, [N, V]."""
        return outputs.logits[chosen] if self.plain else outputs.logits

    def attention_for(
        self, length: int, rows: Tensor | None, sources: Tensor | None = None
    ) -> AbstractContextManager[None]:
        """The fastest attention for lines of so many tokens; ``rows`` and ``sources`` as of ``alone``."""
        return attention_for(self.model, length, rows, sources, by_length=self.by_length)

    def varlen_rows(self, batch: dict[str, Any]) -> Tensor | None:
        """Which row of its line a label belongs to, where rows share lines and are taken one by one; else None."""
        rows = batch.get("label_rows")
        if rows is None or not self._can_be_alone(batch, max(map(max, lengths(batch["rows"])))):
            return None
        return rows

    def _can_be_alone(self, batch: dict[str, Any], longest: int) -> bool:
        on_cpu = batch["input_ids"].device.type == "cpu"
        return self.row_by_row and on_cpu and self.rows_agree is not False and can_be_alone(self.model.config, longest)

    def ask_rows(self, batch: dict[str, Any]) -> None:
        """Ask once, with a batch, whether rows in one line are what they are alone, where they may lie so at all."""
        if self.row_by_row and self.rows_agree is None:
            self.rows_agree = packing_is_equivalent(self, batch)

    def unpad_if_faster(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with its rows in one line and without padding, where that is faster and computes the same; else as it is."""
        if self.teacher or not self._can_be_alone(batch, batch["input_ids"].shape[1]):
            return batch
        self.ask_rows(batch)
        sides = self.tokens(batch)
        return in_one_line(batch, *sides) if self.rows_agree and not is_full(*sides) else batch

    def loss_sum(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Token losses of a batch as a sum in nats, and the number of supervised tokens; in training with a teacher's part."""
        batch = self.unpad_if_faster(batch)
        head = self.model.get_output_embeddings()
        # a head that is adapted, in 4 bits or shared out among processes is no such plain matrix
        bare = type(head) is torch.nn.Linear and type(head.weight) is torch.nn.Parameter
        if bare and not (self.plain or self.plain_head or self.teacher):
            return self._loss_without_logits(batch, head)
        logits, targets, _ = self.predict(batch)
        total, tokens = token_loss_sum(logits, targets)
        if self.teacher and self.training:
            total, divergence = self.teacher.mixed(total, logits, batch)
            self.teacher_sums.add(divergence, tokens)
        return total, tokens

    def _loss_without_logits(self, batch: dict[str, Any], head: Any) -> tuple[Tensor, Tensor]:
        with capture_hidden(self.model) as seen:
            logits, targets, _ = self.predict(batch)
        if not self.head_is_last:  # asked once: a model may scale or cap its logits after the head
            expected = torch.nn.functional.linear(seen.hidden[:1], head.weight, head.bias)
            self.head_is_last = logits.is_meta or torch.allclose(logits.float(), expected.float(), rtol=1e-2, atol=1e-3)
            if not self.head_is_last:
                self.plain_head = True
                return self.loss_sum(batch)
        return chunked_cross_entropy_sum(seen.hidden, head.weight, head.bias, targets)

    def on_fit_start(self) -> None:
        """Turn dropout on: from_pretrained leaves eval mode, and Lightning keeps what it finds."""
        self.train()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The sum of the token losses; ``optimizer_step`` divides it."""
        total, tokens = self.loss_sum(batch)
        self.train_sums.add(total, tokens)
        self.window_open = True
        self.places += batch["places"]
        return total

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step with gradients that are normalised right after the window's last backward, before clipping sees them."""
        assert optimizer_closure is not None

        def closure() -> Any:
            result = optimizer_closure()
            self._close_window(optimizer)
            return result

        super().optimizer_step(epoch, batch_idx, optimizer, closure)
        for name, value in (("loss", self.window_loss), ("grad_norm", self.grad_norm), ("lr", self.learning_rate)):
            self.log_exact(f"train/{name}", value, prog_bar=name == "loss")
        if self.teacher:
            self.log_exact("train/divergence", self.teacher_sums.mean(self.trainer.strategy)[0])
            self.teacher_sums = TokenLoss()

    def _close_window(self, optimizer: Any) -> None:
        self.window_loss, self.window_tokens = self.train_sums.mean(self.trainer.strategy)
        self.train_sums = TokenLoss()
        # Lightning divided by accumulate_grad_batches, DDP by the number of ranks
        scale = self.trainer.accumulate_grad_batches * self.trainer.world_size / max(self.window_tokens, 1)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        for gradient in gradients:
            gradient.mul_(scale)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)  # float16 gradients are scaled until the step
        self.grad_norm = float(full_tensor(torch.nn.utils.get_total_norm(gradients))) / (
            scaler.get_scale() if scaler else 1.0
        )
        self.window_places, self.places, self.window_open = self.places, [], False
        self.learning_rate = optimizer.param_groups[0]["lr"]

    def on_validation_epoch_start(self) -> None:
        """Forget the sums of the last validation."""
        self.val_sums = TokenLoss()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add a batch to the sums of the whole validation set."""
        self.val_sums.add(*self.loss_sum(batch))

    def on_validation_epoch_end(self) -> None:
        """``val/loss``: nats per supervised token, over the set."""
        self.log_exact("val/loss", self.val_sums.mean(self.trainer.strategy)[0], prog_bar=True)

    def log_exact(self, name: str, value: float, *, prog_bar: bool = False) -> None:
        """Log a number in float64; MetricsLog takes it to files and loggers.

        ``self.log`` would round it to float32, and costs a tiny model 4 % of its step: it makes a metric object of each number,
        to reduce what is one number already.
        """
        number = torch.tensor(value, dtype=torch.float64)
        self.trainer.callback_metrics[name] = number
        if prog_bar:
            self.trainer.progress_bar_metrics[name] = value

    def configure_model(self) -> None:
        """Share the weights out, where the strategy does."""
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over the trainable weights, and a schedule that moves once per optimizer step."""
        optimizer = self.optim([p for p in self.parameters() if p.requires_grad])
        # Lightning would step a plateau after the checkpoints of a step, so that a resumed run would miss that step
        steps: Any = {"scheduler": self.schedule(optimizer), "interval": "step", "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": steps}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """One optimizer step; a plateau is seen by the window's loss."""
        scheduler.step(self.window_loss) if isinstance(scheduler, ReduceLROnPlateau) else scheduler.step()

    def trainable_names(self) -> set[str]:
        """Names in the state dict of the weights that are trained, now or later."""
        return self.learnt

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trainable weights; the others are the backbone's and do not change."""
        names = self.trainable_names()
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in names}

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that does not hold exactly the trainable weights.

        Raises:
            UserError: Names are missing or unknown.
        """
        if "state_dict" not in checkpoint:  # the weights were shared out to all processes already
            return
        found, wanted = set(checkpoint["state_dict"]), self.trainable_names()
        if found != wanted:
            missing, unknown = sorted(wanted - found)[:3], sorted(found - wanted)[:3]
            raise UserError(f"checkpoint does not fit this model and peft: missing {missing}, unknown {unknown}")
