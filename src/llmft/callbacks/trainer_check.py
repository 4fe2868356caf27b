"""Check that a ``Trainer`` has the config's settings, and seed the fit; also for a ``Trainer`` that llmft did not build."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch

from llmft.callbacks.gradient_clipping import GradientClipping
from llmft.callbacks.unfreezing import Unfreezing
from llmft.config.schema import TrainConfig
from llmft.config.schema import callbacks as schema
from llmft.utils import determinism
from llmft.utils.device import tf32
from llmft.utils.errors import UserError

# Arguments of lightning.Trainer with an attribute of the same name; each of them changes the results of a training.
COMPARED = ("precision", "accumulate_grad_batches")


class TrainerCheck(pl.Callback):
    """The module attaches it to every trainer (``LightningModule.configure_callbacks``).

    With the same settings and random state, every trainer gives the same weights.

    Args:
        cfg: The run's config.
    """

    def __init__(self, cfg: TrainConfig) -> None:
        self.cfg, self.products = cfg, ExitStack()

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Under autocast, multiply what stays in float32 in TF32, until the end of the fit or validation."""
        self.products.enter_context(tf32(str(self.cfg.trainer.precision)))

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Back to float32 as the process had it."""
        self.products.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """As after the end."""
        self.products.close()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Check the trainer, and seed, so that random numbers drawn earlier do not change the training.

        Raises:
            UserError: Settings are missing or differ; one message lists all of them, each with the argument to pass.
        """
        if not getattr(trainer, "fast_dev_run", False) and (faults := list(self.faults(trainer))):
            raise UserError.from_faults("trainer", faults)
        # a seed per rank, for different dropout masks
        pl.seed_everything((self.cfg.seed + trainer.global_rank) % 2**32, workers=True, verbose=False)

    def faults(self, trainer: Any) -> Iterator[str]:
        """Settings that differ from the config, each with the argument to pass."""
        wanted = self.cfg.trainer
        for name in COMPARED:
            value = wanted.select(name)
            if value is not None and value != getattr(trainer, name):
                yield _fault(name, value, getattr(trainer, name))
        if wanted.devices * wanted.num_nodes != trainer.world_size:
            yield f"{trainer.world_size} processes: pass devices={wanted.devices}, num_nodes={wanted.num_nodes}"
        if trainer.gradient_clip_val is not None:
            yield _fault("gradient_clip_val", None, trainer.gradient_clip_val)
        # Lightning has no public attribute for it; it has no effect with one process
        sampler = getattr(trainer._accelerator_connector, "use_distributed_sampler", False)
        if trainer.world_size > 1 and sampler:
            yield _fault("use_distributed_sampler", False, sampler)
        deterministic, found = determinism.resolved(wanted), _deterministic()
        if (deterministic and not found) or (deterministic is True and found != "true"):
            yield f"deterministic={found}: pass deterministic={deterministic!r}"
        yield from self._missing(trainer)

    def _missing(self, trainer: Any) -> Iterator[str]:
        """Missing callbacks that change the weights."""
        norms = [callback.max_norm for callback in trainer.callbacks if isinstance(callback, GradientClipping)]
        clipping = self.cfg.callback(schema.GradientClipping)
        if clipping and norms != [clipping.max_norm]:
            yield f"gradient clipping: pass callbacks=[GradientClipping(max_norm={clipping.max_norm}), ...] (llmft.callbacks)"
        elif norms and not clipping:
            yield "gradient clipping: the config has none; leave GradientClipping out of callbacks"
        unfreezing = self.cfg.callback(schema.Unfreezing)
        if unfreezing and unfreezing.schedule and not any(isinstance(c, Unfreezing) for c in trainer.callbacks):
            yield "gradual unfreezing: pass callbacks=[*parts.callbacks]"


def _deterministic() -> str | None:
    """What the process is set to; Lightning's Trainer sets it when it is made."""
    if not torch.are_deterministic_algorithms_enabled():
        return None
    return "'warn'" if torch.is_deterministic_algorithms_warn_only_enabled() else "true"


def _fault(name: str, wanted: Any, found: Any) -> str:
    return f"{name}={found!r}: pass {name}={wanted!r}"
