"""Scale gradients down to a largest norm; log how often that was needed."""

import math
from typing import Any

import lightning.pytorch as pl
import torch


class GradientClipping(pl.Callback):
    """Clips by the global L2 norm, which the module has measured (``train/grad_norm``, before clipping).

    Args:
        max_norm: The largest norm; 1.0 is what the seed experiments use.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm
        self.steps = self.clipped = 0

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Clip; a norm that is not finite is left as it is, since scaling would only spread it."""
        norm = pl_module.grad_norm
        self.steps += 1
        if math.isfinite(norm) and norm > self.max_norm:
            self.clipped += 1
            # torch passes those without a gradient over
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(weights, self.max_norm, torch.tensor(norm))
        pl_module.log_exact("train/clipped_share", self.clipped / self.steps)

    def state_dict(self) -> dict[str, int]:
        """Counts, so that the share goes on after a resume."""
        return {"steps": self.steps, "clipped": self.clipped}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on counting."""
        self.steps, self.clipped = state_dict["steps"], state_dict["clipped"]
