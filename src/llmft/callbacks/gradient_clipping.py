"""Clip gradients by their global norm, and log the share of clipped steps."""

import math
from typing import Any

import lightning.pytorch as pl
import torch

from llmft.models.gradients import gradients_of, scale


class GradientClipping(pl.Callback):
    """Clip by the global L2 norm, which the module has computed (``train/grad_norm``, before clipping).

    Args:
        max_norm: Maximum norm.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm
        self.steps = self.clipped = 0

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Clip; gradients with a non-finite norm are left unchanged, because scaling would spread the NaNs."""
        norm = pl_module.grad_norm
        self.steps += not pl_module.float16.overflowed  # which is no update
        if math.isfinite(norm) and norm > self.max_norm:
            self.clipped += 1
            # the coefficient of torch.nn.utils.clip_grads_with_norm_, which would wait for the device to copy it there
            scale(gradients_of(optimizer), float(self.max_norm / (torch.tensor(norm) + 1e-6)))
        pl_module.log_exact("train/clipped_share", self.clipped / max(1, self.steps))

    def state_dict(self) -> dict[str, int]:
        """The counts, so that a resumed run logs the same share."""
        return {"steps": self.steps, "clipped": self.clipped}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the counts."""
        self.steps, self.clipped = state_dict["steps"], state_dict["clipped"]
