"""Stop a training that is broken: a non-finite loss, gradient or weight, a loss that collapsed to zero."""

import math
from typing import Any

import lightning.pytorch as pl
import torch

from llmft.errors import Halted
from llmft.models.base import InstructionModule

SHOWN_ROWS = 8


class NanGuard(pl.Callback):
    """Raises Halted; all values it looks at are the same on every rank, so all ranks stop together.

    Args:
        zero_steps: Halt after this many optimizer steps in a row whose loss is exactly 0.
    """

    def __init__(self, zero_steps: int) -> None:
        self.zero_steps = zero_steps
        self.zeros = 0

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Look at loss and gradient before the optimizer can use them."""
        assert isinstance(pl_module, InstructionModule)
        if not math.isfinite(pl_module.window_loss):
            broken = [name for name, weight in pl_module.model.named_parameters() if not _finite(weight)]
            cause = f" ({len(broken)} weights are not finite, first: {broken[0]})" if broken else ""
            raise Halted(self._message(trainer, pl_module, f"the loss is {pl_module.window_loss}{cause}"))
        # a float16 scaler meets overflow now and then, and skips that step by itself
        if not math.isfinite(pl_module.grad_norm) and trainer.precision != "16-mixed":
            names = [n for n, p in pl_module.model.named_parameters() if p.grad is not None and not _finite(p.grad)]
            what = (
                f"the gradient of {len(names)} weights is not finite (first: {names[0]})"
                if names
                else "its norm overflows"
            )
            raise Halted(self._message(trainer, pl_module, what))
        self.zeros = self.zeros + 1 if pl_module.window_loss == 0 else 0
        if self.zeros >= self.zero_steps:
            raise Halted(
                self._message(trainer, pl_module, f"the loss was exactly 0 for {self.zeros} steps: it collapsed")
            )
        if trainer.global_step == 0:
            self._check_trained(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep broken weights out of every checkpoint."""
        self._check_weights(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """The last step's weights have no next loss to show in."""
        self._check_weights(trainer, pl_module)

    def _check_weights(self, trainer: pl.Trainer, pl_module: Any) -> None:
        for name, weight in pl_module.model.named_parameters():
            if weight.requires_grad and not _finite(weight):
                raise Halted(self._message(trainer, pl_module, f"the weight {name} is not finite"))

    def _check_trained(self, trainer: pl.Trainer, pl_module: Any) -> None:
        idle = [name for name, p in pl_module.model.named_parameters() if p.requires_grad and p.grad is None]
        if idle:
            what = f"{len(idle)} trainable weights have no gradient after the first step (first: {idle[0]})"
            raise Halted(self._message(trainer, pl_module, what))

    def _message(self, trainer: pl.Trainer, pl_module: InstructionModule, what: str) -> str:
        places = pl_module.window_places
        more = f" and {len(places) - SHOWN_ROWS} more" if len(places) > SHOWN_ROWS else ""
        rows = ", ".join(places[:SHOWN_ROWS]) + more
        return (
            f"halted at step {trainer.global_step + 1}, epoch {trainer.current_epoch}: {what}. Rows of the step: {rows}"
        )


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
