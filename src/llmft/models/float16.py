"""float16 mixed precision: sums of losses go back at the size of a mean, and steps that overflow are counted and logged."""

import logging
import math
from typing import Any

from torch import Tensor

log = logging.getLogger(__name__)


class Float16:
    """What ``trainer.precision=16-mixed`` needs besides its gradient scaler.

    float16 ends at 65,504, and the scaler starts with a loss times 65,536. ``InstructionModule`` back-propagates sums of token
    losses, whose gradients are as many times larger than those of a mean as there are tokens: step after step would be skipped
    until the scaler has halved its factor often enough.

    Attributes:
        factor: Multiplies the sums before the backward pass, so that they are about means: a power of two, which changes no digit
            of a gradient; None before the first batch.
        skipped: Optimizer steps that overflowed, so that the scaler skipped them.
        overflowed: Whether the last step did.
    """

    def __init__(self) -> None:
        self.factor: float | None = None
        self.skipped = 0
        self.overflowed = False

    def scaled(self, total: Tensor, tokens: Tensor, strategy: Any) -> Tensor:
        """A loss sum times ``factor``, which the first batch of the first rank decides for the whole training.

        Args:
            total: In nats, scalar.
            tokens: What would make it a mean, scalar.
            strategy: Of the trainer.
        """
        if self.factor is None:
            self.factor = 2.0 ** -round(math.log2(strategy.broadcast(float(tokens)) or 1.0))
        return total * self.factor

    def count(self, step: int, norm: float, scale: float) -> None:
        """Count a step whose gradients are not finite, which the scaler skips.

        Args:
            step: Its number.
            norm: Of the gradients.
            scale: The scaler's factor.
        """
        self.overflowed = not math.isfinite(norm)
        if self.overflowed:
            self.skipped += 1
            log.warning(
                "step %d: a gradient overflowed in float16 at a loss scale of %s: no update, and the learning rate waits "
                "(%d skipped)",
                *(step, f"{scale:,g}" if scale < 1 else f"{scale:,.0f}", self.skipped),
            )

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"factor": self.factor, "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the factor and the count of a checkpoint."""
        self.factor, self.skipped = state_dict["factor"], state_dict["skipped"]
